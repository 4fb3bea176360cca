"""Ray Serve: proxy and replicas as actors; raw bodies."""

import asyncio
import os
import signal
import tempfile

import numpy as np
import ray  # type: ignore[import-not-found]
from numpy.typing import NDArray
from ray import serve
from starlette.requests import Request

from bench.peers.model import HOST, MAX_BATCH_SIZE, PORT, RUNTIME, WORKERS, Answer, Model

BATCH_WAIT_SECONDS = 0.005
MAX_ONGOING_REQUESTS = 64
"""Of a replica. The default of 5 keeps batches from ever filling."""


@serve.deployment(
    num_replicas=WORKERS,
    max_ongoing_requests=MAX_ONGOING_REQUESTS,
    ray_actor_options={"num_cpus": 1},
)
class Classifier:
    """Decodes in threads; batches under TensorFlow, image by image under LiteRT."""

    def __init__(self) -> None:
        self.model = Model()
        self.model.warm_up(range(1, MAX_BATCH_SIZE + 1) if RUNTIME == "tensorflow" else (1,))

    async def __call__(self, request: Request) -> Answer:
        """A raw body to its label."""
        data = await request.body()
        if RUNTIME != "tensorflow":
            return self.model.predict([self.model.prepare(data)])[0]
        answer: Answer = await self.together(await asyncio.to_thread(self.model.prepare, data))
        return answer

    @serve.batch(  # type: ignore[untyped-decorator]
        max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=BATCH_WAIT_SECONDS
    )
    async def together(self, images: list[NDArray[np.uint8]]) -> list[Answer]:
        """Predicts in a thread, so that the replica's loop goes on collecting."""
        return await asyncio.to_thread(self.model.predict, images)


if __name__ == "__main__":
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
    ray.init(
        num_cpus=2 + WORKERS,
        include_dashboard=False,
        _node_ip_address=HOST,
        _temp_dir=tempfile.mkdtemp(prefix="ray-"),
        logging_level="warning",
        log_to_driver=False,
    )
    serve.start(http_options={"host": HOST, "port": PORT})
    serve.run(Classifier.bind(), route_prefix="/predict")  # type: ignore[attr-defined]
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
