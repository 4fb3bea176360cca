"""The HTTP surface, one module for each part."""

from service.routes import deliveries, dicomweb, explain, health, models, pages, predict

__all__ = ["deliveries", "dicomweb", "explain", "health", "models", "pages", "predict"]
