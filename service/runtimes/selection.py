"""Which runtime loads a version."""

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from contract.manifest import RuntimeName
from contract.version import StoredVersion
from service.choices import Device, RuntimeChoice
from service.errors import RuntimeUnusable
from service.runtimes.base import Runtime, Shapes, served_shapes
from service.runtimes.litert import LiteRtRuntime
from service.settings import Settings

logger = logging.getLogger("service.runtimes")

GPU_DEVICE_NODES: Final = ("nvidia[0-9]*", "dxg", "kfd")
"""Device nodes of NVIDIA, WSL and AMD GPUs."""


def open_runtime(settings: Settings, stored: StoredVersion) -> Runtime:
    """Loads a verified version and warms it up.

    Raises:
        RuntimeUnusable: no runtime here can run it.
    """
    manifest = stored.manifest
    name = choose(settings.runtime, settings.device, frozenset(manifest.artifacts))
    if name not in manifest.artifacts:
        raise RuntimeUnusable(f"the version has no artifact for the runtime {name}")
    shapes = served_shapes(manifest)
    runtime = _open(name, settings, stored, shapes)
    try:
        runtime.warm_up(stored.preprocess.height, stored.preprocess.width, shapes)
    except BaseException:
        runtime.close()
        raise
    return runtime


def choose(
    choice: RuntimeChoice,
    device: Device,
    artifacts: frozenset[RuntimeName],
    nodes: Path = Path("/dev"),
) -> RuntimeName:
    """The runtime that a choice stands for on this machine.

    TensorFlow takes seconds to import, so with ``auto`` it is asked for a GPU only where it is
    installed and a device node says that there may be one.
    """
    if choice is RuntimeChoice.TENSORFLOW or device is Device.GPU:
        return "tensorflow"
    if choice is RuntimeChoice.LITERT or device is Device.CPU or "tensorflow" not in artifacts:
        return "litert"
    if not any(True for pattern in GPU_DEVICE_NODES for _ in nodes.glob(pattern)):
        return "litert"
    if find_spec("tensorflow") is None:
        logger.warning("there is a GPU, but TensorFlow is not installed; predicting on the CPU")
        return "litert"
    from service.runtimes.tensorflow import gpu_is_visible

    return "tensorflow" if gpu_is_visible() else "litert"


def _open(name: RuntimeName, settings: Settings, stored: StoredVersion, shapes: Shapes) -> Runtime:
    artifact = stored.manifest.artifacts[name]
    if name == "tensorflow":
        from service.runtimes.tensorflow import TensorFlowRuntime

        return TensorFlowRuntime(
            stored.path / artifact,
            shapes,
            settings.max_batch_size,
            device=settings.device,
            xla=settings.xla,
            mixed_precision=settings.mixed_precision,
        )
    return LiteRtRuntime(stored.files[artifact], shapes, settings.interpreters)
