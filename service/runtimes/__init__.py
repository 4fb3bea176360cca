"""What runs a model version: LiteRT on the CPU, TensorFlow on a GPU."""

from service.runtimes.base import Predictor, Runtime
from service.runtimes.selection import open_runtime

__all__ = ["Predictor", "Runtime", "open_runtime"]
