"""LitServe: an API process, and worker processes that decode and predict."""

from typing import Any

import litserve  # type: ignore[import-not-found]
import numpy as np
from fastapi import Request
from numpy.typing import NDArray

from bench.peers.model import HOST, MAX_BATCH_SIZE, PORT, RUNTIME, WORKERS, Answer, Model

BATCH_SIZE = MAX_BATCH_SIZE if RUNTIME == "tensorflow" else 1
BATCH_TIMEOUT_SECONDS = 0.005 if RUNTIME == "tensorflow" else 0.0


class Classifier(litserve.LitAPI):  # type: ignore[misc]
    """Batches under TensorFlow; under LiteRT, which gains nothing from it, image by image."""

    def setup(self, _device: str) -> None:
        """Loads the model in a worker."""
        self.model = Model()
        self.model.warm_up(range(1, BATCH_SIZE + 1))

    def decode_request(self, request: Request) -> NDArray[np.uint8]:
        """A form to the model's input."""
        form: Any = request
        return self.model.prepare(form["file"].file.read())

    def predict(self, x: Any) -> Any:
        """One image, or a list of them where there are batches."""
        if BATCH_SIZE == 1:
            return self.model.predict([x])[0]
        return self.model.predict(list(x))

    def batch(self, inputs: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        """The model stacks by itself."""
        return inputs

    def unbatch(self, output: list[Answer]) -> list[Answer]:
        """One answer for each request."""
        return output

    def encode_response(self, output: Answer) -> Answer:
        """Answers are JSON as they are."""
        return output


if __name__ == "__main__":
    server = litserve.LitServer(
        Classifier(max_batch_size=BATCH_SIZE, batch_timeout=BATCH_TIMEOUT_SECONDS),
        accelerator="cpu",
        devices=1,
        workers_per_device=WORKERS,
        fast_queue=True,
    )
    server.run(
        host=HOST, port=PORT, num_api_servers=1, generate_client_file=False, access_log=False
    )
