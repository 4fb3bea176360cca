"""BentoML: a service class; multipart with an image, as its clients send it."""

import os
import sys
from typing import BinaryIO

import bentoml  # type: ignore[import-not-found]
from PIL.Image import Image

from bench.peers.model import HOST, MAX_BATCH_SIZE, PORT, RUNTIME, WORKERS, Answer, Model

TARGET = "bench.peers.bentoml_app:Classifier"
BATCHING = RUNTIME == "tensorflow"


def content(image: Image) -> bytes:
    """The file behind an image that Pillow has opened but not decoded."""
    file: BinaryIO = image.fp  # type: ignore[attr-defined]
    file.seek(0)
    return file.read()


class _Base:
    def __init__(self) -> None:
        self.model = Model()
        self.model.warm_up(range(1, MAX_BATCH_SIZE + 1) if BATCHING else (1,))


class _Batching(_Base):
    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH_SIZE)  # type: ignore[untyped-decorator]
    def predict(self, images: list[Image]) -> list[Answer]:
        """Files to labels; BentoML makes the batch and its size."""
        return self.model.predict([self.model.prepare(content(image)) for image in images])


class _Single(_Base):
    @bentoml.api  # type: ignore[untyped-decorator]
    def predict(self, image: Image) -> Answer:
        """One file to its label."""
        return self.model.predict([self.model.prepare(content(image))])[0]


@bentoml.service(
    name="classifier",
    workers=WORKERS,
    threads=2 if BATCHING else 1,
    traffic={"timeout": 30},
    logging={"access": {"enabled": False}},
    metrics={"enabled": True},
)
class Classifier(_Batching if BATCHING else _Single):  # type: ignore[misc]
    """Batches under TensorFlow; under LiteRT, which gains nothing from it, image by image."""


if __name__ == "__main__":
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    command = [sys.executable, "-m", "bentoml", "serve", TARGET]
    os.execv(command[0], [*command, "--host", HOST, "--port", str(PORT)])  # noqa: S606 - the peer
