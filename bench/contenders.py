"""Who is compared, and how each is configured for two cores."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from bench.forms import Form

LABEL: Final = '"label": ?"{label}"'
"""Pattern of a right answer, with or without a space after the colon; one that Lua and Python's
regular expressions read alike."""

OPEN_INFERENCE_LABEL: Final = '"data": ?."{label}"'


class Variant(StrEnum):
    """What a contender runs; the value is the name of its artifact in a manifest."""

    TENSORFLOW = "tensorflow"
    LITERT = "litert"


TITLES: Final = {
    Variant.TENSORFLOW: "as its users deploy it (TensorFlow SavedModel)",
    Variant.LITERT: "given the same LiteRT file",
}


@dataclass(frozen=True, slots=True)
class Peer:
    """A server to compare with, in one variant.

    Attributes:
        name: of the server.
        package: the distribution whose version is reported.
        module: the program in ``bench.peers``.
        variant: what it runs.
        workers: worker processes, replicas or first-stage processes.
        form, field: how its users send an image.
        path: where to POST.
        configuration: what is set, for the report.
        answer: pattern of a right answer, see :data:`LABEL`.
    """

    name: str
    package: str
    module: str
    variant: Variant
    workers: int
    form: Form
    configuration: str
    field: str = "file"
    path: str = "/predict"
    answer: str = LABEL

    @property
    def key(self) -> str:
        """Name of its environment and for ``--only``."""
        return f"{self.module.removesuffix('_app')}-{self.variant}"

    @property
    def requirements(self) -> tuple[str, str]:
        """Its locks in ``bench/requirements``."""
        runtime = "tensorflow" if self.variant is Variant.TENSORFLOW else "runtime"
        return f"{runtime}.txt", f"{self.module.removesuffix('_app')}.txt"

    def environment(self, version: Path, port: int) -> dict[str, str]:
        """What ``bench.peers.model`` reads."""
        return {
            "BENCH_VERSION": str(version),
            "BENCH_RUNTIME": self.variant,
            "BENCH_PORT": str(port),
            "BENCH_WORKERS": str(self.workers),
        }


SERVICE: Final = "service"
"""Key of this service for ``--only``."""

SERVICE_FORMS: Final = (Form.RAW, Form.MULTIPART)
SERVICE_FIELD: Final = "files"

_TF, _LITERT = Variant.TENSORFLOW, Variant.LITERT
_OPEN_INFERENCE: Final = "/v2/models/brain-tumor/infer"

PEERS: Final = (
    Peer(
        "FastAPI",
        "fastapi",
        "fastapi_app",
        _TF,
        1,
        Form.MULTIPART,
        "synchronous endpoint in the thread pool, one model for all threads, no batching, uvloop and "
        "httptools, no access log",
    ),
    Peer(
        "LitServe",
        "litserve",
        "litserve_app",
        _TF,
        1,
        Form.MULTIPART,
        "one worker, batches of up to 16 within 5 ms, fast_queue, one API process",
    ),
    Peer(
        "BentoML",
        "bentoml",
        "bentoml_app",
        _TF,
        1,
        Form.MULTIPART,
        "adaptive batching up to 16, one worker with two threads, access log off",
        field="images",
    ),
    Peer(
        "mosec",
        "mosec",
        "mosec_app",
        _TF,
        1,
        Form.RAW,
        "two stages: one process decodes, one predicts batches of up to 16 within 5 ms",
        path="/inference",
    ),
    Peer(
        "MLServer",
        "mlserver",
        "mlserver_app",
        _TF,
        1,
        Form.OPEN_INFERENCE,
        "adaptive batching up to 16 within 5 ms, one parallel worker, debug off",
        field="image",
        path=_OPEN_INFERENCE,
        answer=OPEN_INFERENCE_LABEL,
    ),
    Peer(
        "Ray Serve",
        "ray",
        "ray_app",
        _TF,
        1,
        Form.RAW,
        "one replica, max_ongoing_requests 64, @serve.batch up to 16 within 5 ms, decoding and "
        "prediction in threads, throughput-optimised mode, no dashboard, no HAProxy (GPL)",
    ),
    Peer(
        "FastAPI",
        "fastapi",
        "fastapi_app",
        _LITERT,
        2,
        Form.MULTIPART,
        "two uvicorn workers, each with one single-threaded interpreter",
    ),
    Peer(
        "LitServe",
        "litserve",
        "litserve_app",
        _LITERT,
        2,
        Form.MULTIPART,
        "two workers, each with one single-threaded interpreter, no batching, fast_queue",
    ),
    Peer(
        "BentoML",
        "bentoml",
        "bentoml_app",
        _LITERT,
        2,
        Form.MULTIPART,
        "two workers, each with one single-threaded interpreter, no batching, access log off",
        field="image",
    ),
    Peer(
        "mosec",
        "mosec",
        "mosec_app",
        _LITERT,
        2,
        Form.RAW,
        "one stage of two processes, each decodes and predicts with one single-threaded interpreter",
        path="/inference",
    ),
    Peer(
        "MLServer",
        "mlserver",
        "mlserver_app",
        _LITERT,
        2,
        Form.OPEN_INFERENCE,
        "two parallel workers, each with one single-threaded interpreter, no batching, debug off",
        field="image",
        path=_OPEN_INFERENCE,
        answer=OPEN_INFERENCE_LABEL,
    ),
    Peer(
        "Ray Serve",
        "ray",
        "ray_app",
        _LITERT,
        2,
        Form.RAW,
        "two replicas, each with one single-threaded interpreter, max_ongoing_requests 64, no "
        "batching, throughput-optimised mode, no dashboard, no HAProxy (GPL)",
    ),
)
"""Under LiteRT nothing is batched: its runtime gains nothing from a larger tensor."""
