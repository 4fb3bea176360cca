"""The int8 model on the CPU: single-threaded LiteRT interpreters that share a batch.

Two interpreters with one thread each beat one interpreter with two threads, and a batch in one
tensor is no faster than its images one by one; so a batch is spread over the interpreters.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import RuntimeUnusable
from service.runtimes.base import Runtime

OUTPUT = "probabilities"
"""Name of the output tensor in the model's signature."""


IMAGES_PER_INTERPRETER: Final = 2
"""Of a batch. A larger one would be no faster, and its first images would wait for its last; with one
each, an interpreter would idle while the next batch is put together."""


class LiteRtRuntime(Runtime):
    """A ``.tflite`` file.

    Args:
        path: the file.
        classes: number of classes.
        interpreters: how many share a batch, and so the cores that are used.
        max_batch_size: most images that :meth:`predict` gets.

    Raises:
        RuntimeUnusable: LiteRT is not installed, or the file is no such model.
    """

    name: ClassVar[str] = "litert"
    device = "cpu"

    def __init__(self, path: Path, classes: int, interpreters: int, max_batch_size: int) -> None:
        self._classes = classes
        largest = min(max_batch_size, IMAGES_PER_INTERPRETER * interpreters)
        self.batch_sizes = range(1, largest + 1)
        self._interpreters = [_Interpreter(path) for _ in range(interpreters)]
        # The calling thread drives the first interpreter itself: a lone image needs no thread hop.
        self._helpers = ThreadPoolExecutor(max(1, interpreters - 1), "litert")

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See :meth:`Runtime.predict`; the batch is shared out image by image."""
        output = np.empty((len(batch), self._classes), np.float32)
        # One shared iterator, so that a core that is slowed down takes fewer images.
        indices = iter(range(len(batch)))
        helpers = self._interpreters[1 : len(batch)]
        futures = [
            self._helpers.submit(interpreter.run, batch, output, indices) for interpreter in helpers
        ]
        try:
            self._interpreters[0].run(batch, output, indices)
        finally:
            for future in futures:
                future.result()
        return output

    def close(self) -> None:
        """Ends the helping threads and frees the interpreters."""
        self._helpers.shutdown()
        self._interpreters.clear()


class _Interpreter:
    """One interpreter, for one thread at a time."""

    def __init__(self, path: Path) -> None:
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
        output = self._output_details()
        self._output = output["index"]
        self._scale, self._zero_point = output["quantization"]
        self._quantised = output["dtype"] is not np.float32
        # Weights are packed at the first call, and a warm-up batch may not reach every interpreter.
        self._interpreter.invoke()

    def _output_details(self) -> dict[str, Any]:
        details: list[dict[str, Any]] = self._interpreter.get_output_details()
        if len(details) == 1:
            return details[0]
        for signature in self._interpreter.get_signature_list():
            named = self._interpreter.get_signature_runner(signature).get_output_details()
            if OUTPUT in named:
                found: dict[str, Any] = named[OUTPUT]
                return found
        raise RuntimeUnusable(f"the LiteRT model names no output {OUTPUT!r}")

    def run(
        self, batch: NDArray[np.uint8], output: NDArray[np.float32], indices: Iterator[int]
    ) -> None:
        """Predicts the images that the shared iterator gives it, into their rows of ``output``."""
        for index in indices:
            self._interpreter.set_tensor(self._input, batch[index].reshape(self._shape))
            self._interpreter.invoke()
            row = self._interpreter.get_tensor(self._output)[0]
            if self._quantised:
                row = (row.astype(np.float32) - self._zero_point) * self._scale
            output[index] = row
