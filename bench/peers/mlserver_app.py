"""MLServer: the Open Inference Protocol, the file as base64 in its JSON."""

import json
import os
import sys
import tempfile
from pathlib import Path

from mlserver import MLModel  # type: ignore[import-not-found]
from mlserver.types import (  # type: ignore[import-not-found]
    InferenceRequest,
    InferenceResponse,
    ResponseOutput,
)

from bench.peers.model import HOST, MAX_BATCH_SIZE, PORT, RUNTIME, WORKERS, Model

MAX_BATCH_SECONDS = 0.005


class Classifier(MLModel):  # type: ignore[misc]
    """A custom runtime, as MLServer has none for TensorFlow or LiteRT."""

    async def load(self) -> bool:
        """Loads the model in this process or worker."""
        self.model = Model()
        self.model.warm_up(range(1, MAX_BATCH_SIZE + 1) if RUNTIME == "tensorflow" else (1,))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """A batch of files to labels and probabilities."""
        files = self.decode(payload.inputs[0])
        answers = self.model.predict([self.model.prepare(data) for data in files])
        size = len(answers)
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                ResponseOutput(
                    name="label",
                    shape=[size, 1],
                    datatype="BYTES",
                    data=[answer["label"] for answer in answers],
                ),
                ResponseOutput(
                    name="probabilities",
                    shape=[size, len(self.model.classes)],
                    datatype="FP32",
                    data=[p for answer in answers for p in answer["probabilities"].values()],
                ),
            ],
        )


def settings() -> dict[str, dict[str, object]]:
    """File name to content; batches only under TensorFlow."""
    batching = RUNTIME == "tensorflow"
    return {
        "settings.json": {
            "host": HOST,
            "http_port": PORT,
            "grpc_port": PORT + 1,
            "metrics_port": PORT + 2,
            "debug": False,
            "parallel_workers": WORKERS,
        },
        "model-settings.json": {
            "name": "brain-tumor",
            "implementation": "bench.peers.mlserver_app.Classifier",
            "max_batch_size": MAX_BATCH_SIZE if batching else 0,
            "max_batch_time": MAX_BATCH_SECONDS if batching else 0,
        },
    }


if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp(prefix="mlserver-"))
    for name, content in settings().items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    command = [sys.executable, "-m", "mlserver.cli.main", "start", str(folder)]
    os.execv(command[0], command)  # noqa: S606 - the peer itself
