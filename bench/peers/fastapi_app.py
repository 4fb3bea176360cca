"""FastAPI as most tutorials have it: a synchronous endpoint, one image a call, no batching."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from queue import Queue

import uvicorn
from fastapi import FastAPI, UploadFile

from bench.peers.model import HOST, PORT, RUNTIME, WORKERS, Answer, Model

INTERPRETERS = 1
"""In each worker; TensorFlow's model is shared by all threads, LiteRT's by none."""


class Pool:
    """Models for the endpoint's threads to take turns with."""

    def __init__(self) -> None:
        self._model = Model()
        self._model.warm_up()
        self._free: Queue[Model] = Queue()
        self._free.put(self._model)
        for _ in range(INTERPRETERS - 1):
            self._free.put(Model())

    def predict(self, data: bytes) -> Answer:
        """One file to its answer."""
        prepared = self._model.prepare(data)
        if RUNTIME == "tensorflow":
            return self._model.predict([prepared])[0]
        model = self._free.get()
        try:
            return model.predict([prepared])[0]
        finally:
            self._free.put(model)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Loads the model at the start."""
    app.state.pool = Pool()
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
def predict(file: UploadFile) -> Answer:
    """One upload to its label."""
    pool: Pool = app.state.pool
    return pool.predict(file.file.read())


if __name__ == "__main__":
    uvicorn.run(
        "bench.peers.fastapi_app:app", host=HOST, port=PORT, workers=WORKERS, access_log=False
    )
