"""The int8 model on the CPU: single-threaded LiteRT interpreters that share a batch.

Two interpreters with one thread each beat one interpreter with two threads, and a batch in one
tensor is no faster than its images one by one; so a batch is spread over the interpreters.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.answer import Outputs
from service.errors import RuntimeUnusable
from service.runtimes.base import Runtime, Shapes

PROBABILITIES: Final = "probabilities"
"""What a model's only output is, whatever it is called."""

SIGNATURE: Final = "serving_default"
"""The signature that names the outputs, where there are several."""

IMAGES_PER_INTERPRETER: Final = 2
"""Of a batch. A larger one would be no faster, and its first images would wait for its last; with one
each, an interpreter would idle while the next batch is put together."""


class LiteRtRuntime(Runtime):
    """A ``.tflite`` file.

    Args:
        path: the file.
        shapes: of the outputs that are wanted.
        interpreters: how many share a batch, and so the cores that are used.
        max_batch_size: most images that :meth:`predict` gets.

    Raises:
        RuntimeUnusable: LiteRT is not installed, or the file is no such model.
    """

    name: ClassVar[str] = "litert"
    device = "cpu"

    def __init__(self, path: Path, shapes: Shapes, interpreters: int, max_batch_size: int) -> None:
        self._shapes = shapes
        largest = min(max_batch_size, IMAGES_PER_INTERPRETER * interpreters)
        self.batch_sizes = range(1, largest + 1)
        self._interpreters = [_Interpreter(path, shapes) for _ in range(interpreters)]
        # The calling thread drives the first interpreter itself: a lone image needs no thread hop.
        self._helpers = ThreadPoolExecutor(max(1, interpreters - 1), "litert")

    def predict(self, batch: NDArray[np.uint8]) -> Outputs:
        """See :meth:`Runtime.predict`; the batch is shared out image by image."""
        outputs = {
            name: np.empty((len(batch), *shape), np.float32) for name, shape in self._shapes.items()
        }
        # One shared iterator, so that a core that is slowed down takes fewer images.
        indices = iter(range(len(batch)))
        helpers = self._interpreters[1 : len(batch)]
        futures = [
            self._helpers.submit(interpreter.run, batch, outputs, indices)
            for interpreter in helpers
        ]
        try:
            self._interpreters[0].run(batch, outputs, indices)
        finally:
            for future in futures:
                future.result()
        return Outputs(**outputs)

    def close(self) -> None:
        """Ends the helping threads and frees the interpreters."""
        self._helpers.shutdown()
        self._interpreters.clear()


class _Interpreter:
    """One interpreter, for one thread at a time."""

    def __init__(self, path: Path, shapes: Shapes) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise RuntimeUnusable("LiteRT is not installed (package ai-edge-litert)") from error
        self._interpreter: Any = Interpreter(model_path=str(path), num_threads=1)
        inputs = self._interpreter.get_input_details()
        if len(inputs) != 1 or inputs[0]["dtype"] is not np.uint8:
            raise RuntimeUnusable("the LiteRT model does not take one uint8 tensor")
        self._input = inputs[0]["index"]
        # The batch axis may be open, and a model may want the channel axis that a slice lacks.
        self._shape = (1, *(int(size) for size in inputs[0]["shape"][1:]))
        self._interpreter.resize_tensor_input(self._input, self._shape, strict=True)
        self._interpreter.allocate_tensors()
        named = self._output_details()
        missing = shapes.keys() - named.keys()
        if missing:
            raise RuntimeUnusable(f"the LiteRT model lacks the output {', '.join(sorted(missing))}")
        self._outputs = [_Output.of(name, named[name]) for name in shapes]
        # Weights are packed at the first call, and a warm-up batch may not reach every interpreter.
        self._interpreter.invoke()

    def _output_details(self) -> dict[str, dict[str, Any]]:
        details: list[dict[str, Any]] = self._interpreter.get_output_details()
        if len(details) == 1:
            return {PROBABILITIES: details[0]}
        if SIGNATURE not in self._interpreter.get_signature_list():
            raise RuntimeUnusable(f"the LiteRT model has no signature {SIGNATURE!r}")
        runner = self._interpreter.get_signature_runner(SIGNATURE)
        named: dict[str, dict[str, Any]] = runner.get_output_details()
        return named

    def run(
        self,
        batch: NDArray[np.uint8],
        outputs: Mapping[str, NDArray[np.float32]],
        indices: Iterator[int],
    ) -> None:
        """Predicts the images that the shared iterator gives it, into their rows of ``outputs``."""
        for index in indices:
            self._interpreter.set_tensor(self._input, batch[index].reshape(self._shape))
            self._interpreter.invoke()
            for output in self._outputs:
                row = self._interpreter.get_tensor(output.tensor)[0]
                if output.quantised:
                    row = (row.astype(np.float32) - output.zero_point) * output.scale
                outputs[output.name][index] = row


class _Output(NamedTuple):
    """An output tensor; a quantised one stands for ``(value - zero_point) * scale``."""

    name: str
    tensor: int
    quantised: bool
    scale: float
    zero_point: int

    @classmethod
    def of(cls, name: str, details: Mapping[str, Any]) -> "_Output":
        return cls(
            name,
            details["index"],
            details["dtype"] is not np.float32,
            *details["quantization"],
        )
