"""What some settings choose between."""

from enum import StrEnum


class RuntimeChoice(StrEnum):
    """What predicts; ``auto`` is TensorFlow where it finds a GPU, else LiteRT."""

    AUTO = "auto"
    LITERT = "litert"
    TENSORFLOW = "tensorflow"


class Device(StrEnum):
    """Where a model is to run; ``auto`` is a GPU where there is one."""

    AUTO = "auto"
    CPU = "cpu"
    GPU = "gpu"


class LogLevel(StrEnum):
    """Severities, ascending."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
