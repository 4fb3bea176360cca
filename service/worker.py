"""A process that takes slices from their files to their answers: ``python -m service.worker``.

Threads of one process share the interpreter's lock, and with it a good part of the processor time of a
slice; processes do not. The module that was started never works itself: it is warm, and forks a worker
for each connection that it is handed. A worker ends when the other side closes its connection.

Where the service predicts in batches, on a GPU say, a worker does what comes before and after: it
decodes a file, and later it, or another one, says what the model's outputs for that slice mean.

What passes: with the connection comes the open file of the model, where the worker predicts; to the
worker one :class:`Order`, which is answered with its process id; then files, each answered with a
:class:`Verdict`, and slices that were predicted, each answered with a :class:`Meaning`, in their order.
Both sides are this project's own code on one machine.
"""

import gc
import logging
import logging.config
import math
import os
import pickle
import signal
import struct
from contextlib import suppress
from pathlib import Path
from socket import recv_fds, socket
from time import monotonic
from typing import Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.answer import Outputs, Rules
from contract.decoding import Media, open_source, sniff
from contract.errors import DecodeError, UnsupportedMedia
from contract.policy import Policy
from contract.preprocessing import DicomReference, PreprocessSpec
from contract.region import Geometry
from contract.sealing import path_of
from contract.zygote import receive, silence
from service.answers import Answer
from service.batching import MAX_FAILURES, answer_soundly, infer
from service.choices import LogLevel
from service.decoding import Decoder
from service.errors import DeadlineExceeded, Failure
from service.jobs import TOO_LATE, Group, Job, Upload
from service.logs import configuration
from service.runtimes.base import Shapes
from service.runtimes.litert import Interpreter

START: Final = struct.Struct("<dQ")
"""Seconds in which a worker is to be ready, as nobody waits longer; bytes of the order that follows."""

LENGTH: Final = struct.Struct("<Q")
"""Bytes of the reply that follows, or a process id."""

TASK: Final = struct.Struct("<?dQ")
"""Whether a :class:`Predicted` follows or a file; monotonic seconds of the deadline; bytes of it."""

MAX_OBJECT_BYTES: Final = 4 * 2**20
"""Of a DICOM object: an uncompressed slice of 1024 x 1024 pixels has half of them. What is larger has
many slices, and would come back."""


class Order(NamedTuple):
    """What a worker is to work with, beside its model.

    Attributes:
        shapes: of the model's outputs that are wanted.
        spec: preprocessing of the version.
        rules: how its outputs become answers.
        policy: what is accepted of a file.
        task_seconds: how long one slice may take; a worker that takes longer ends there and then.
        log_level: of the service.
    """

    shapes: Shapes
    spec: PreprocessSpec
    rules: Rules
    policy: Policy
    task_seconds: float
    log_level: LogLevel


class Decoded(NamedTuple):
    """A slice that the service is to predict.

    Attributes:
        pixels: uint8 (height, width), preprocessed.
        geometry: how its original image lies in them.
        coloured: whether that is in colour.
    """

    pixels: NDArray[np.uint8] | None
    geometry: Geometry | None
    coloured: bool


class Predicted(NamedTuple):
    """A slice that the service has predicted.

    Attributes:
        outputs: of this slice alone.
        geometry, coloured: as of :class:`Decoded`.
    """

    outputs: Outputs
    geometry: Geometry | None
    coloured: bool


class Meaning(NamedTuple):
    """What the outputs for one slice mean.

    Attributes:
        answer: None where that could not be found out.
        failure: why not.
    """

    answer: Answer | None
    failure: Failure | None


class Verdict(NamedTuple):
    """What became of one file.

    Attributes:
        outcome: the class probabilities, or why there are none; no other output comes back. None where
            the slice was decoded only, or the file is not for a worker: it has several slices, or
            another process decompresses it.
        answer: what they mean.
        dicom: the slice's place in a study.
        started: monotonic seconds when it was begun; all processes of a machine have the same clock.
        decode_seconds, inference_seconds: what each part took.
        decoded: where the service predicts.
        study: as of a job.
    """

    outcome: Outputs | Failure | None
    answer: Answer | None
    dicom: DicomReference | None
    started: float
    decode_seconds: float
    inference_seconds: float
    decoded: Decoded | None = None
    study: str | None = None


def may_be_one_slice(data: bytes) -> bool:
    """Whether a worker is to look at a file: a JPEG, a PNG or a DICOM object that is not large."""
    try:
        return sniff(data) is not Media.DICOM or len(data) <= MAX_OBJECT_BYTES
    except UnsupportedMedia:
        return False


class Bench:
    """Where slices are worked on, one after the other.

    Args:
        order: what with.
        model: the ``.tflite`` file; None where the service predicts.

    Raises:
        RuntimeUnusable: the file is no such model.
    """

    def __init__(self, order: Order, model: Path | None) -> None:
        self._order = order
        # What has several slices goes back; there is nothing to expand.
        self._decoder = Decoder(order.policy, lambda *_: None)
        self._interpreter: Interpreter | None = None
        if model is not None:
            self._interpreter = Interpreter(model, order.shapes)
            self._interpreter.predict(np.zeros((1, order.spec.height, order.spec.width), np.uint8))
        self.failures = 0

    def work(self, data: bytes, deadline: float) -> Verdict:
        """Decodes a slice, and predicts and answers it if it is to; nothing is raised."""
        spec, rules, policy = self._order.spec, self._order.rules, self._order.policy
        started = monotonic()
        # Only a file of several slices asks for its request.
        job = Job(Upload(None, data), spec, rules, deadline, cast("Group", None))
        try:
            job.source = open_source(data, spec, policy)
        except DecodeError as error:
            job.outcome, job.study, job.dicom = error, error.study, error.dicom
        else:
            if job.source.frames > 1 or job.source.isolated:
                return Verdict(None, None, None, started, 0.0, 0.0)
            job.outcome = self._decoder.decode(job)
        job.decode_seconds = monotonic() - started
        if job.outcome is None and job.expired():
            job.outcome = DeadlineExceeded(TOO_LATE)
        interpreter, decoded = self._interpreter, None
        if job.outcome is None and interpreter is None:
            decoded = Decoded(job.pixels, job.geometry, job.coloured)
        elif job.outcome is None and interpreter:
            start = monotonic()
            worked = infer(interpreter.predict, [job])
            job.inference_seconds = monotonic() - start
            self.failures = 0 if worked else self.failures + 1
            answer_soundly(job)
        return Verdict(
            _lightened(job),
            job.answer,
            job.dicom,
            started,
            job.decode_seconds,
            job.inference_seconds,
            decoded,
            job.study,
        )

    def answer(self, data: bytes) -> Meaning:
        """Says what outputs mean, those of a :class:`Predicted`; no fault of theirs is raised."""
        predicted: Predicted = pickle.loads(data)  # noqa: S301 - of the service itself
        rules, spec = self._order.rules, self._order.spec
        job = Job(
            Upload(None, b""),
            spec,
            rules,
            math.inf,
            cast("Group", None),
            outcome=predicted.outputs,
            geometry=predicted.geometry,
            coloured=predicted.coloured,
        )
        answer_soundly(job)
        return Meaning(job.answer, job.outcome if isinstance(job.outcome, Failure) else None)


def main() -> None:
    """Forks a worker for each connection that comes in over standard input, until that is closed."""
    with socket(fileno=os.dup(0)) as control:
        # Standard error stays: a worker has the service's log.
        silence(0, 1)
        # A supervisor may tell all processes to stop. The service first finishes what it has accepted,
        # and a worker ends when its connection is closed.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Nobody waits for a worker; its connection says when it has ended.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        Image.preinit()
        # What is loaded now, all workers share.
        import ai_edge_litert.interpreter  # noqa: F401

        import contract.dicom  # noqa: F401

        gc.freeze()
        while files := recv_fds(control, 1, 2)[1]:
            if os.fork() == 0:
                control.close()
                _serve(socket(fileno=files[0]), *map(path_of, files[1:]))
            for file in files:
                os.close(file)


def _serve(connection: socket, model: Path | None = None) -> None:
    """A worker's life; ends the process."""
    status = 1
    try:
        with suppress(EOFError, ConnectionError):
            seconds, size = START.unpack(receive(connection, START.size))
            # The signal's default action ends the process wherever it is, inside a library too.
            signal.setitimer(signal.ITIMER_REAL, seconds)
            order: Order = pickle.loads(receive(connection, size))  # noqa: S301 - of the service itself
            logging.config.dictConfig(configuration(order.log_level))
            bench = Bench(order, model)
            connection.sendall(LENGTH.pack(os.getpid()))
            # What fails again and again is replaced as a whole.
            while bench.failures < MAX_FAILURES:
                signal.setitimer(signal.ITIMER_REAL, 0)
                is_predicted, deadline, size = TASK.unpack(receive(connection, TASK.size))
                data = receive(connection, size)
                signal.setitimer(signal.ITIMER_REAL, order.task_seconds)
                reply = bench.answer(data) if is_predicted else bench.work(data, deadline)
                written = pickle.dumps(reply, pickle.HIGHEST_PROTOCOL)
                connection.sendall(LENGTH.pack(len(written)) + written)
        status = 0
    except Exception:
        logging.getLogger("service.worker").exception("a worker failed")
    finally:
        logging.shutdown()
        os._exit(status)


def _lightened(job: Job) -> Outputs | Failure | None:
    """What comes back of an outcome: a mask alone is 50 kB, and nobody asked for it."""
    return Outputs(job.outcome.probabilities) if isinstance(job.outcome, Outputs) else job.outcome


if __name__ == "__main__":
    # Verdicts name the module that they come from, which the service knows by its own name alone.
    from service.worker import main as forks

    forks()
