"""The SavedModel under TensorFlow: for a GPU, and on the CPU where it is asked for.

The only module of the service that imports TensorFlow, and only when a model is loaded with it.
"""

import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from contract.answer import Outputs
from service.choices import Device
from service.errors import RuntimeUnusable
from service.runtimes.base import Runtime, Shapes
from service.runtimes.operations import require_computing

SIGNATURE = "serving_default"
INPUT = "slices"
"""Names that the export writes; those of the outputs are the manifest's."""

EXPLAIN, HEATMAP = "explain", "heatmap"
"""A signature that a SavedModel may have besides, and its output."""


class TensorFlowRuntime(Runtime):
    """A SavedModel.

    Args:
        path: its folder.
        shapes: of the outputs that are wanted.
        max_batch_size: most images that :meth:`predict` gets.
        device: where it is to run.
        xla: whether XLA compiles it, for each batch size by itself.
        mixed_precision: whether most of it computes in 16 bits; for all models of this process.

    Raises:
        RuntimeUnusable: TensorFlow is not installed, or sees no GPU where one was asked for, or the
            folder holds no such model, or one that may do more than compute.
    """

    name: ClassVar[str] = "tensorflow"

    def __init__(
        self,
        path: Path,
        shapes: Shapes,
        max_batch_size: int,
        *,
        device: Device = Device.AUTO,
        xla: bool = False,
        mixed_precision: bool = False,
    ) -> None:
        tf = import_tensorflow()
        gpus = [] if device is Device.CPU else tf.config.list_logical_devices("GPU")
        if device is Device.GPU and not gpus:
            raise RuntimeUnusable("BRAIN_DEVICE is gpu, and TensorFlow sees no GPU")
        self.device = gpu_name(tf) if gpus else "cpu"
        self._placement = gpus[0].name if gpus else "/CPU:0"
        kind = "auto_mixed_precision" if gpus else "auto_mixed_precision_onednn_bfloat16"
        tf.config.optimizer.set_experimental_options({kind: mixed_precision})
        # A new shape costs a retrace and, on a GPU, kernel selection: seconds. So only these occur.
        self.batch_sizes = padded_sizes(max_batch_size)
        self._tf = tf
        # As `load` reads it, which would run what is in it.
        require_computing(tf.__internal__.saved_model.parse_saved_model(str(path)))
        with tf.device(self._placement):
            # Graph and variables are read here, and nothing of the folder later.
            self._model: Any = tf.saved_model.load(str(path))
        signature = self._model.signatures.get(SIGNATURE)
        if signature is None or INPUT not in signature.structured_input_signature[1]:
            raise RuntimeUnusable(f"the SavedModel has no signature {SIGNATURE!r} of {INPUT!r}")
        missing = shapes.keys() - signature.structured_outputs.keys()
        if missing:
            raise RuntimeUnusable(f"the SavedModel lacks the output {', '.join(sorted(missing))}")
        self._signature = tf.function(signature, jit_compile=True) if xla else signature
        self._names = tuple(shapes)
        self._explain = self._model.signatures.get(EXPLAIN)
        if self._explain is not None and HEATMAP not in self._explain.structured_outputs:
            raise RuntimeUnusable(f"the signature {EXPLAIN!r} has no output {HEATMAP!r}")

    def predict(self, batch: NDArray[np.uint8]) -> Outputs:
        """See :meth:`Runtime.predict`; the batch is padded to the next of ``batch_sizes``."""
        count = len(batch)
        size = next(size for size in self.batch_sizes if size >= count)
        if size > count:
            padding = np.zeros((size - count, *batch.shape[1:]), np.uint8)
            batch = np.concatenate([batch, padding])
        answer = self._answer(batch)
        return Outputs(**{name: answer[name].numpy()[:count] for name in self._names})

    def warm_up(self, height: int, width: int, shapes: Shapes) -> None:
        """See :meth:`Runtime.warm_up`.

        Raises:
            RuntimeUnusable: as there, or the model ran elsewhere than on its device.
        """
        super().warm_up(height, width, shapes)
        # Without this, what a GPU cannot do would be done by the CPU, silently.
        wanted = self._tf.DeviceSpec.from_string(self._placement).device_type
        answer = self._answer(np.zeros((1, height, width), np.uint8))
        for name in self._names:
            ran = self._tf.DeviceSpec.from_string(answer[name].backing_device).device_type
            if ran != wanted:
                raise RuntimeUnusable(
                    f"the model is to run on a {wanted}, and {name} comes from a {ran}"
                )

    def _answer(self, batch: NDArray[np.uint8]) -> dict[str, Any]:
        with self._tf.device(self._placement):
            outputs: dict[str, Any] = self._signature(**{INPUT: self._tf.constant(batch)})
        return outputs

    @property
    def explains(self) -> bool:
        """See :attr:`Runtime.explains`."""
        return self._explain is not None

    def explain(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See :meth:`Runtime.explain`."""
        with self._tf.device(self._placement):
            answer = self._explain(**{INPUT: self._tf.constant(batch)})
        heatmap: NDArray[np.float32] = answer[HEATMAP].numpy()
        if heatmap.ndim != 3 or len(heatmap) != len(batch) or not np.isfinite(heatmap).all():
            raise ValueError(
                f"the heat map of {len(batch)} slices is {heatmap.shape}, or not finite"
            )
        return heatmap


def padded_sizes(max_batch_size: int) -> list[int]:
    """Powers of two below ``max_batch_size``, and itself."""
    powers = (1 << exponent for exponent in range(max_batch_size.bit_length()))
    return [size for size in powers if size < max_batch_size] + [max_batch_size]


def import_tensorflow() -> Any:
    """TensorFlow, told to take GPU memory as it needs it.

    Raises:
        RuntimeUnusable: it is not installed.
    """
    # Its native log lines are no JSON; warnings and errors stay.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    try:
        import tensorflow as tf
    except ImportError as error:
        raise RuntimeUnusable("TensorFlow is not installed") from error
    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:
            # The device is in use already, with the choice made at that time.
            break
    return tf


def gpu_name(tf: Any) -> str:
    """Name of the first GPU, as its driver gives it."""
    gpu = tf.config.list_physical_devices("GPU")[0]
    details: dict[str, Any] = tf.config.experimental.get_device_details(gpu)
    return str(details.get("device_name", "gpu"))


def gpu_is_visible() -> bool:
    """Whether TensorFlow sees a GPU; False if it is not installed."""
    try:
        tf = import_tensorflow()
    except RuntimeUnusable:
        return False
    return bool(tf.config.list_physical_devices("GPU"))
