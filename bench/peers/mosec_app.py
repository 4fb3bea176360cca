"""mosec: a Rust front, and worker processes; raw bodies."""

import os
from typing import Any

import mosec  # type: ignore[import-not-found]
import numpy as np
from numpy.typing import NDArray

from bench.peers.model import (
    HOST,
    MAX_BATCH_SIZE,
    PORT,
    RUNTIME,
    WORKERS,
    Answer,
    Model,
    Preparation,
)

MAX_WAIT_MS = 5


class Prepare(mosec.Worker):  # type: ignore[misc]
    """First stage under TensorFlow: decodes, so that the model's process need not."""

    def __init__(self) -> None:
        self.preparation = Preparation()

    def deserialize(self, data: bytes) -> bytes:
        """The body is the file."""
        return data

    def forward(self, data: bytes) -> NDArray[np.uint8]:
        """A file to the model's input."""
        return self.preparation.prepare(data)


class Predict(mosec.Worker):  # type: ignore[misc]
    """Second stage under TensorFlow: predicts in batches."""

    def __init__(self) -> None:
        self.model = Model()
        self.model.warm_up(range(1, MAX_BATCH_SIZE + 1))

    def forward(self, data: list[NDArray[np.uint8]]) -> list[Answer]:
        """Inputs to answers."""
        return self.model.predict(data)


class Whole(mosec.Worker):  # type: ignore[misc]
    """The only stage under LiteRT: nothing is gained by batches, nor by a second hop."""

    def __init__(self) -> None:
        self.model = Model()
        self.model.warm_up()

    def deserialize(self, data: bytes) -> bytes:
        """The body is the file."""
        return data

    def forward(self, data: bytes) -> Answer:
        """A file to its answer."""
        return self.model.predict([self.model.prepare(data)])[0]


if __name__ == "__main__":
    os.environ |= {"MOSEC_ADDRESS": HOST, "MOSEC_PORT": str(PORT)}
    server: Any = mosec.Server()
    if RUNTIME == "tensorflow":
        server.append_worker(Prepare, num=WORKERS)
        server.append_worker(Predict, max_batch_size=MAX_BATCH_SIZE, max_wait_time=MAX_WAIT_MS)
    else:
        server.append_worker(Whole, num=WORKERS)
    server.run()
