"""The HTTP surface, one module for each part."""

from service.routes import explain, health, models, pages, predict

__all__ = ["explain", "health", "models", "pages", "predict"]
