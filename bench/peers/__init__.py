"""The servers to compare with, each as a small program for its own environment.

``python -m bench.peers.NAME`` starts one. All of them decode and preprocess with ``contract/`` and
answer with the same members; what differs is the server around it. :mod:`bench.peers.model` says what
they read from the environment.
"""
