"""The inference service: ``python -m service``, or :func:`create_app` in any ASGI server."""

from service.app import create_app
from service.settings import Settings

__all__ = ["Settings", "create_app"]
