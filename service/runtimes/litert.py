"""The int8 model on the CPU: single-threaded LiteRT interpreters, one for each core.

Two interpreters with one thread each beat one interpreter with two threads, and a batch in one tensor
is no faster than its images one by one. So each interpreter is a lane of its own. One more, with
several threads, is for a slice that is alone in the service: its client waits while cores are idle.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.answer import Outputs
from contract.sealing import SealedFile
from service.errors import RuntimeUnusable
from service.runtimes.base import Predictor, Runtime, Shapes

PROBABILITIES: Final = "probabilities"
"""What a model's only output is, whatever it is called."""

SIGNATURE: Final = "serving_default"
"""The signature that names the outputs, where there are several."""

MAX_REASON: Final = 200
"""Characters of what LiteRT itself says."""

MAX_SOLO_THREADS: Final = 4
"""The layers of a small model give more threads than that too little to do."""


class LiteRtRuntime(Runtime):
    """A ``.tflite`` file.

    Args:
        file: the file.
        shapes: of the outputs that are wanted.
        interpreters: how many lanes there are, and so the cores that are used.

    Raises:
        RuntimeUnusable: LiteRT is not installed, or the file is no such model.
    """

    name: ClassVar[str] = "litert"
    whole: ClassVar[bool] = True
    device = "cpu"
    batch_sizes: Sequence[int] = (1,)

    def __init__(self, file: SealedFile, shapes: Shapes, interpreters: int) -> None:
        self._file = file
        self._lanes = [Interpreter(file.path, shapes) for _ in range(interpreters)]
        self._solo: Interpreter | None = None
        if interpreters > 1:
            self._solo = Interpreter(file.path, shapes, min(interpreters, MAX_SOLO_THREADS))

    @property
    def lanes(self) -> Sequence[Predictor]:
        """See :attr:`Runtime.lanes`."""
        return self._lanes

    @property
    def file(self) -> SealedFile | None:
        """See :attr:`Runtime.file`."""
        return self._file

    @property
    def solo(self) -> Predictor | None:
        """See :attr:`Runtime.solo`."""
        return self._solo

    def predict(self, batch: NDArray[np.uint8]) -> Outputs:
        """See :meth:`Runtime.predict`; in the first lane, image by image."""
        return self._lanes[0].predict(batch)

    def close(self) -> None:
        """Frees the interpreters."""
        self._lanes.clear()
        self._solo = None


class Interpreter:
    """One interpreter, for one thread at a time.

    Args:
        path: the ``.tflite`` file, which stays mapped: nothing may change it.
        shapes: of the outputs that are wanted.
        threads: that share the work of one slice.
    """

    def __init__(self, path: Path, shapes: Shapes, threads: int = 1) -> None:
        try:
            from ai_edge_litert import interpreter
        except ImportError as error:
            raise RuntimeUnusable("LiteRT is not installed (package ai-edge-litert)") from error
        try:
            self._interpreter: Any = interpreter.Interpreter(str(path), num_threads=threads)
        except (RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0][:MAX_REASON]
            raise RuntimeUnusable(f"LiteRT cannot read the model: {reason}") from error
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

    def _output_details(self) -> dict[str, dict[str, Any]]:
        details: list[dict[str, Any]] = self._interpreter.get_output_details()
        if len(details) == 1:
            return {PROBABILITIES: details[0]}
        if SIGNATURE not in self._interpreter.get_signature_list():
            raise RuntimeUnusable(f"the LiteRT model has no signature {SIGNATURE!r}")
        runner = self._interpreter.get_signature_runner(SIGNATURE)
        named: dict[str, dict[str, Any]] = runner.get_output_details()
        return named

    def predict(self, batch: NDArray[np.uint8]) -> Outputs:
        """See :meth:`Runtime.predict`; image by image."""
        rows = [self._invoke(image) for image in batch]
        return Outputs(
            **{
                output.name: np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
                for output, *arrays in zip(self._outputs, *rows, strict=True)
            }
        )

    def _invoke(self, image: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        self._interpreter.set_tensor(self._input, image.reshape(self._shape))
        self._interpreter.invoke()
        return [
            output.values(self._interpreter.get_tensor(output.tensor)) for output in self._outputs
        ]


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

    def values(self, tensor: NDArray[Any]) -> NDArray[np.float32]:
        """What a tensor of it stands for."""
        if not self.quantised:
            return tensor
        return (tensor.astype(np.float32) - self.zero_point) * self.scale
