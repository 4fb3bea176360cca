"""Who is compared, and how each is configured for two cores."""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from bench.forms import Form

LABEL: Final = '"label": ?"{label}"'
"""Pattern of a right answer, with or without a space after the colon; one that Lua and Python's
regular expressions read alike."""

OPEN_INFERENCE_LABEL: Final = '"data": ?."{label}"'


class Variant(StrEnum):
    """What a contender runs."""

    TENSORFLOW = "tensorflow"
    LITERT = "litert"
    LITERT_HALVED = "litert-halved"
    """With this project's own decoding: at half the scale."""

    @property
    def runtime(self) -> str:
        """Name of its artifact in a manifest."""
        return self.value.partition("-")[0]

    @property
    def halved(self) -> bool:
        """Whether it decodes as this project does, else as everybody does: the whole picture."""
        return self is Variant.LITERT_HALVED


TITLES: Final = {
    Variant.TENSORFLOW: "as its users deploy it (TensorFlow SavedModel; Pillow decodes)",
    Variant.LITERT: "given the same LiteRT file (Pillow decodes)",
    Variant.LITERT_HALVED: "given the same LiteRT file and this project's decoding",
}


@dataclass(frozen=True, slots=True)
class Peer:
    """A server to compare with, in one variant.

    Attributes:
        name: of the server.
        package: the distribution whose version is reported.
        module: the program in ``bench.peers``.
        variant: what it runs.
        workers: worker processes, replicas or first-stage processes.
        form, field: how its users send an image.
        path: where to POST.
        configuration: what is set, for the report.
        answer: pattern of a right answer, see :data:`LABEL`.
    """

    name: str
    package: str
    module: str
    variant: Variant
    workers: int
    form: Form
    configuration: str
    field: str = "file"
    path: str = "/predict"
    answer: str = LABEL

    @property
    def key(self) -> str:
        """Name for ``--only``."""
        return f"{self._server}-{self.variant}"

    @property
    def installed_as(self) -> str:
        """Name of its environment: how it decodes is no matter of what is installed."""
        return f"{self._server}-{self.variant.runtime}"

    @property
    def requirements(self) -> tuple[str, str]:
        """Its locks in ``bench/requirements``."""
        runtime = "tensorflow" if self.variant is Variant.TENSORFLOW else "runtime"
        return f"{runtime}.txt", f"{self._server}.txt"

    @property
    def _server(self) -> str:
        return self.module.removesuffix("_app")

    def environment(self, version: Path, port: int) -> dict[str, str]:
        """What :mod:`bench.peers.model` and its server read."""
        return {
            **model_environment(version, self.variant),
            "BENCH_PORT": str(port),
            "BENCH_WORKERS": str(self.workers),
        }


def model_environment(version: Path, variant: Variant) -> dict[str, str]:
    """What :mod:`bench.peers.model` reads of a model and how to run it."""
    return {
        "BENCH_VERSION": str(version),
        "BENCH_RUNTIME": variant.runtime,
        "BENCH_DECODING": "halved" if variant.halved else "whole",
    }


SERVICE: Final = "service"
"""Key of this service for ``--only``."""

SERVICE_FORMS: Final = (Form.RAW, Form.MULTIPART)
SERVICE_FIELD: Final = "files"

_TF, _LITERT = Variant.TENSORFLOW, Variant.LITERT

FASTEST: Final = ("FastAPI", "mosec")
"""Those that were ahead of the others at some number of clients in every run so far."""

_OPEN_INFERENCE: Final = "/v2/models/brain-tumor/infer"

_PEERS: Final = (
    Peer(
        "FastAPI",
        "fastapi",
        "fastapi_app",
        _TF,
        1,
        Form.MULTIPART,
        "synchronous endpoint in the thread pool, one model for all threads, no batching, uvloop and "
        "httptools, no access log",
    ),
    Peer(
        "LitServe",
        "litserve",
        "litserve_app",
        _TF,
        1,
        Form.MULTIPART,
        "one worker, batches of up to 16 within 5 ms, fast_queue, one API process",
    ),
    Peer(
        "BentoML",
        "bentoml",
        "bentoml_app",
        _TF,
        1,
        Form.MULTIPART,
        "adaptive batching up to 16, one worker with two threads, access log off",
        field="images",
    ),
    Peer(
        "mosec",
        "mosec",
        "mosec_app",
        _TF,
        1,
        Form.RAW,
        "two stages: one process decodes, one predicts batches of up to 16 within 5 ms",
        path="/inference",
    ),
    Peer(
        "MLServer",
        "mlserver",
        "mlserver_app",
        _TF,
        1,
        Form.OPEN_INFERENCE,
        "adaptive batching up to 16 within 5 ms, one parallel worker, debug off",
        field="image",
        path=_OPEN_INFERENCE,
        answer=OPEN_INFERENCE_LABEL,
    ),
    Peer(
        "Ray Serve",
        "ray",
        "ray_app",
        _TF,
        1,
        Form.RAW,
        "one replica, max_ongoing_requests 64, @serve.batch up to 16 within 5 ms, decoding and "
        "prediction in threads, throughput-optimised mode, no dashboard, no HAProxy (GPL)",
    ),
    Peer(
        "FastAPI",
        "fastapi",
        "fastapi_app",
        _LITERT,
        2,
        Form.MULTIPART,
        "two uvicorn workers, each with one single-threaded interpreter",
    ),
    Peer(
        "LitServe",
        "litserve",
        "litserve_app",
        _LITERT,
        2,
        Form.MULTIPART,
        "two workers, each with one single-threaded interpreter, no batching, fast_queue",
    ),
    Peer(
        "BentoML",
        "bentoml",
        "bentoml_app",
        _LITERT,
        2,
        Form.MULTIPART,
        "two workers, each with one single-threaded interpreter, no batching, access log off",
        field="image",
    ),
    Peer(
        "mosec",
        "mosec",
        "mosec_app",
        _LITERT,
        2,
        Form.RAW,
        "one stage of two processes, each decodes and predicts with one single-threaded interpreter",
        path="/inference",
    ),
    Peer(
        "MLServer",
        "mlserver",
        "mlserver_app",
        _LITERT,
        2,
        Form.OPEN_INFERENCE,
        "two parallel workers, each with one single-threaded interpreter, no batching, debug off",
        field="image",
        path=_OPEN_INFERENCE,
        answer=OPEN_INFERENCE_LABEL,
    ),
    Peer(
        "Ray Serve",
        "ray",
        "ray_app",
        _LITERT,
        2,
        Form.RAW,
        "two replicas, each with one single-threaded interpreter, max_ongoing_requests 64, no "
        "batching, throughput-optimised mode, no dashboard, no HAProxy (GPL)",
    ),
)
"""Under LiteRT nothing is batched: its runtime gains nothing from a larger tensor."""

PEERS: Final = (
    *_PEERS,
    *(
        replace(peer, variant=Variant.LITERT_HALVED)
        for peer in _PEERS
        if peer.variant is Variant.LITERT and peer.name in FASTEST
    ),
)
