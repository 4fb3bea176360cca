"""The HTTP surface, one module for each part."""

from service.routes import health, models, pages, predict

__all__ = ["health", "models", "pages", "predict"]
