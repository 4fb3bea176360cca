"""What every peer does with an image: decode, preprocess, predict, name the label.

Read from the environment: ``BENCH_VERSION`` is the folder of a model version, ``BENCH_RUNTIME`` is
``litert`` or ``tensorflow``, ``BENCH_DECODING`` is ``whole`` or ``halved``, ``BENCH_PORT`` and
``BENCH_WORKERS`` are for the server.
"""

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from contract.decoding import decode
from contract.preprocessing import PreprocessSpec, preprocess

HOST: Final = "127.0.0.1"
PORT: Final = int(os.environ.get("BENCH_PORT", "8000"))
WORKERS: Final = int(os.environ.get("BENCH_WORKERS", "1"))
RUNTIME: Final = os.environ.get("BENCH_RUNTIME", "litert")
HALVED: Final = os.environ.get("BENCH_DECODING", "halved") == "halved"
"""JPEGs are decoded as this project does, else as Pillow does when nothing is asked of it."""

VERSION: Final = Path(os.environ.get("BENCH_VERSION", "model_store/brain-tumor/1"))

MAX_BATCH_SIZE: Final = 16
"""Most images that a batching peer predicts together. TensorFlow gains little beyond it here."""


class Answer(TypedDict):
    """What a peer answers for one image."""

    label: str
    probability: float
    probabilities: dict[str, float]


class Network(Protocol):
    """A loaded artifact."""

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Images of (height, width) to float32 (n, classes)."""
        ...


class Preparation:
    """Everything before the network: all that a process needs which only decodes."""

    def __init__(self) -> None:
        self.manifest: dict[str, Any] = json.loads((VERSION / "manifest.json").read_bytes())
        self.spec = PreprocessSpec.model_validate(self.manifest["preprocess"]["parameters"])

    def prepare(self, data: bytes) -> NDArray[np.uint8]:
        """A file to the model's input."""
        if HALVED:
            return preprocess(decode(data, self.spec).upright, self.spec)
        return preprocess(np.asarray(Image.open(io.BytesIO(data)).convert("L")), self.spec)


class Model(Preparation):
    """One copy of the model, for one thread at a time under LiteRT.

    Args:
        threads: of the LiteRT interpreter; TensorFlow takes all cores.
    """

    def __init__(self, threads: int = 1) -> None:
        super().__init__()
        self.classes: list[str] = self.manifest["classes"]
        path = VERSION / self.manifest["artifacts"][RUNTIME]
        self._network: Network = (
            TensorFlowNetwork(path) if RUNTIME == "tensorflow" else LiteRtNetwork(path, threads)
        )

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Answer]:
        """Prepared images to answers."""
        return [self._answer(row) for row in self._network.predict(images).tolist()]

    def warm_up(self, sizes: Sequence[int] = (1,)) -> None:
        """Predicts once at each batch size."""
        blank = np.zeros((self.spec.height, self.spec.width), np.uint8)
        for size in sizes:
            self._network.predict([blank] * size)

    def _answer(self, row: list[float]) -> Answer:
        probability = max(row)
        return {
            "label": self.classes[row.index(probability)],
            "probability": probability,
            "probabilities": dict(zip(self.classes, row, strict=True)),
        }


class LiteRtNetwork:
    """The int8 file, image by image: a batch in one tensor is no faster."""

    def __init__(self, path: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter: Any = Interpreter(model_path=str(path), num_threads=threads)
        tensor = self._interpreter.get_input_details()[0]
        self._input: int = tensor["index"]
        self._shape = (1, *(int(size) for size in tensor["shape"][1:]))
        self._interpreter.resize_tensor_input(self._input, self._shape, strict=True)
        self._interpreter.allocate_tensors()
        self._output = self._probabilities()

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """See :class:`Network`."""
        scale, zero_point = self._output["quantization"]
        rows = []
        for image in images:
            self._interpreter.set_tensor(self._input, image.reshape(self._shape))
            self._interpreter.invoke()
            row = self._interpreter.get_tensor(self._output["index"])[0]
            rows.append((row.astype(np.float32) - zero_point) * scale if scale else row)
        return np.array(rows, np.float32)

    def _probabilities(self) -> dict[str, Any]:
        details: list[dict[str, Any]] = self._interpreter.get_output_details()
        if len(details) == 1:
            return details[0]
        signature = next(iter(self._interpreter.get_signature_list()))
        runner = self._interpreter.get_signature_runner(signature)
        named: dict[str, Any] = runner.get_output_details()["probabilities"]
        return named


class TensorFlowNetwork:
    """The SavedModel, a batch in one call; safe in many threads."""

    def __init__(self, path: Path) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        import tensorflow as tf

        self._tensor = tf.constant
        self._signature = tf.saved_model.load(str(path)).signatures["serving_default"]

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """See :class:`Network`."""
        answer = self._signature(slices=self._tensor(np.stack(images)))
        rows: NDArray[np.float32] = answer["probabilities"].numpy()
        return rows
