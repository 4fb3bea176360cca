"""The inference service: ``python -m service``."""
