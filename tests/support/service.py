"""Real services on free ports, real runtimes that misbehave on command, and changed versions."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray

from contract.answer import Outputs, Rules
from contract.store import ModelStore
from contract.version import StoredVersion
from scripts.ports import free_port, is_ready
from service.app import create_app
from service.choices import RuntimeChoice
from service.runtimes import Runtime
from service.runtimes.base import Shapes, served_shapes
from service.server import configure
from service.settings import Settings
from service.state import State

MODEL = "brain-tumor"
ROOT = Path(__file__).resolve().parents[2]
RULES = Rules(
    classes=("glioma", "meningioma", "notumor", "pituitary"),
    tumor_classes=("glioma", "meningioma", "pituitary"),
    tumor_threshold=0.5,
)
PATIENCE_SECONDS = 30.0
"""How long a test waits for what should happen at once; the machine may be busy."""
TRUST = ssl.create_default_context()
"""Of all clients: each makes one of its own else, which takes longer than most requests."""


class FakeRuntime(Runtime):
    """Answers every slice with the first class, and does what a broken runtime does on command.

    Logits and mask agree with it; other outputs are 0.

    Attributes:
        gate: cleared, a batch hangs until it is set again.
        error: raised instead of an answer.
        batches: sizes of the batches that it was given after its warm-up.
        closed: its engine has retired it.
        whole: as of :attr:`Runtime.whole`.
    """

    name = "litert"
    device = "cpu"

    def __init__(
        self, shapes: Shapes | None = None, max_batch_size: int = 8, *, whole: bool = False
    ) -> None:
        self.whole = whole  # type: ignore[misc]
        self.batch_sizes = [1] if whole else [1, max_batch_size]
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.error: BaseException | None = None
        self.batches: list[int] = []
        self.closed = False
        self._shapes = shapes or {"probabilities": (4,)}

    def predict(self, batch: NDArray[np.uint8]) -> Outputs:
        self.batches.append(len(batch))
        self.entered.set()
        assert self.gate.wait(PATIENCE_SECONDS)
        if self.error is not None:
            raise self.error
        arrays = {
            name: np.zeros((len(batch), *shape), np.float32) for name, shape in self._shapes.items()
        }
        arrays["probabilities"][:, 0] = 1
        if "logits" in arrays:
            arrays["logits"][:, 0] = 20
        if "mask" in arrays:
            arrays["mask"][:] = 1
        return Outputs(**arrays)

    def warm_up(self, height: int, width: int, shapes: Shapes) -> None:
        super().warm_up(height, width, shapes)
        self.batches.clear()
        self.entered.clear()

    def close(self) -> None:
        self.closed = True


class FakeRuntimes:
    """Opens :class:`FakeRuntime`, and keeps each for the test to command.

    Args:
        whole: as of :attr:`Runtime.whole`.

    Attributes:
        gate: cleared, opening waits until it is set again.
        held: the only version of which opening waits; None stands for all.
        reached: set once opening waits.
        error: raised instead of opening one.
    """

    def __init__(self, *, whole: bool = False) -> None:
        self._whole = whole
        self.opened: list[FakeRuntime] = []
        self.gate = threading.Event()
        self.gate.set()
        self.held: int | None = None
        self.reached = threading.Event()
        self.error: Exception | None = None

    def __call__(self, settings: Settings, stored: StoredVersion) -> Runtime:
        if self.held in {None, stored.manifest.version} and not self.gate.is_set():
            self.reached.set()
            # Longer than a test waits for what must not wait for this.
            assert self.gate.wait(2 * PATIENCE_SECONDS)
        if self.error is not None:
            raise self.error
        shapes = served_shapes(stored.manifest)
        runtime = FakeRuntime(shapes, settings.max_batch_size, whole=self._whole)
        runtime.warm_up(stored.preprocess.height, stored.preprocess.width, shapes)
        self.opened.append(runtime)
        return runtime

    @property
    def last(self) -> FakeRuntime:
        """The one that serves."""
        return self.opened[-1]


class Service:
    """A service that runs in a thread of the test.

    Attributes:
        url: where it listens.
        client: talks to it.
    """

    def __init__(self, app: FastAPI, server: uvicorn.Server, url: str) -> None:
        self.url = url
        self.client = httpx.Client(base_url=url, timeout=PATIENCE_SECONDS, verify=TRUST)
        self._app = app
        self._server = server

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for what no HTTP client would send."""
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """Those that it listens on."""
        return self._server.servers[0].sockets

    @property
    def connections(self) -> Set[object]:
        """Those that are open, of whoever is connected."""
        return self._server.server_state.connections

    @property
    def tasks(self) -> Set[object]:
        """The requests that it is at."""
        return self._server.server_state.tasks

    @property
    def state(self) -> State:
        """Its inner state."""
        state: State = self._app.state.parts
        return state

    def predict(self, *images: bytes, **options: Any) -> httpx.Response:
        """Posts images as multipart, named 0.jpg, 1.jpg and so on."""
        files = [("files", (f"{number}.jpg", image)) for number, image in enumerate(images)]
        return self.client.post("/predict", files=files, **options)

    def predict_raw(
        self, image: bytes, media: str = "image/jpeg", **options: Any
    ) -> httpx.Response:
        """Posts an image as the body."""
        headers = {"Content-Type": media, **options.pop("headers", {})}
        return self.client.post("/predict", content=image, headers=headers, **options)

    def metric(self, sample: str, **labels: str) -> float:
        """The value of a sample, 0 if there is none."""
        value = self.state.metrics.registry.get_sample_value(sample, labels)
        return 0.0 if value is None else value


@contextmanager
def serving(
    settings: Settings,
    open_runtime: Callable[[Settings, StoredVersion], Runtime] | None = None,
    ready: bool = True,
    seconds: float = PATIENCE_SECONDS,
) -> Iterator[Service]:
    """A service over real HTTP on a free port; waits until it is ready, unless told otherwise.

    Args:
        settings: of the service.
        open_runtime: see :func:`service.app.create_app`.
        ready: wait until it is.
        seconds: how long at most.
    """
    app = create_app(settings, open_runtime) if open_runtime else create_app(settings)
    config = configure(app, settings.model_copy(update={"port": 0}), None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="service")
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        service = Service(app, server, f"http://127.0.0.1:{port}")
        with service.client:
            if ready:
                wait_until(lambda: service.client.get("/health").status_code == 200, seconds)
            yield service
    finally:
        server.should_exit = True
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive(), "the service did not stop"


def settings_for(store: Path, **changes: Any) -> Settings:
    """Settings for tests: quick on CPU, whatever the machine and its environment."""
    values: dict[str, Any] = {
        "model_store": store,
        "runtime": RuntimeChoice.LITERT,
        "interpreters": 2,
        # Their start takes half a second of both cores, for which most tests have no use.
        "workers": 0,
        "decode_threads": 2,
        "deadline_ms": PATIENCE_SECONDS * 1000,
        "batch_timeout_ms": PATIENCE_SECONDS * 1000,
    }
    return Settings(**{**values, **changes})


@contextmanager
def process(
    store: Path, log: Path | None = None, /, **variables: str
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """``python -m service`` in a process of its own, ready, and the port that it listens on.

    Args:
        log: file that its log goes to; without it, where this process' own goes. A pipe that nobody
            reads would fill up, and lines would be lost.
    """
    port = free_port()
    command = [sys.executable, "-m", "service"]
    environment = environment_with(
        BRAIN_MODEL_STORE=str(store), BRAIN_PORT=str(port), BRAIN_RUNTIME="litert", **variables
    )
    with ExitStack() as stack:
        written = None if log is None else stack.enter_context(log.open("wb"))
        child = stack.enter_context(
            subprocess.Popen(command, cwd=ROOT, env=environment, stderr=written)
        )
        try:
            wait_until(lambda: is_ready(port))
            yield child, port
        finally:
            child.kill()


def environment_with(**variables: str) -> dict[str, str]:
    """This process' environment without settings of a service, and with some."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BRAIN_")}
    return clean | variables


def run_python(*arguments: str) -> str:
    """Runs Python in a process of its own, as for TensorFlow; fails the test if that does.

    Returns:
        What it printed.
    """
    finished = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment_with(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def read_status(client: HTTPConnection) -> int:
    """The status of an answer, read to its end, so that the connection can go on or be closed."""
    answer = client.getresponse()
    answer.read()
    return answer.status


@contextmanager
def occupied(
    service: Service, runtimes: "FakeRuntimes", image: bytes
) -> Iterator[tuple[HTTPConnection, HTTPConnection]]:
    """Two clients of a service for one slice: that of the slice in hand, and one without room.

    The slice is predicted once the runtime's gate is set.
    """
    runtimes.last.gate.clear()
    accepted, refused = (HTTPConnection(*service.address, PATIENCE_SECONDS) for _ in range(2))
    with closing(accepted), closing(refused):
        accepted.request("POST", "/predict", image, {"Content-Type": "image/jpeg"})
        wait_until(lambda: service.state.pipeline.depth == 1)
        yield accepted, refused


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Returns once the condition holds; fails the test if it never does.

    It must hold for a tenth of a second at least, or for a fifth of the time that it takes to come.
    """
    end, pause = monotonic() + seconds, 0.01
    while not condition():
        assert monotonic() < end, "what the test waits for did not happen"
        sleep(pause)
        # To ask a service how it is costs it as much as some of what it does meanwhile.
        pause = min(1.2 * pause, 0.1)


def entries(answer: httpx.Response) -> list[dict[str, Any]]:
    """The entry of each slice, whether the request was answered or all of it refused."""
    content = answer.json()
    found: list[dict[str, Any]] = content.get("predictions", content.get("errors"))
    return found


def codes(answer: httpx.Response) -> list[str | None]:
    """The code of each entry's error; None where there is none."""
    return [entry.get("error", {}).get("code") for entry in entries(answer)]


def newest(store: Path) -> int:
    """The newest version of the model."""
    return ModelStore(store).versions(MODEL)[-1]


def add_version(store: Path, **changes: Any) -> int:
    """Copies the newest version to the next number, and changes fields of its manifest.

    It is whole as soon as it is there: a service may watch the store.
    """
    version = newest(store)
    aside = store.with_name(f"{store.name}-aside")
    shutil.copytree(store / MODEL / str(version), aside / MODEL / str(version + 1))
    edit_manifest(aside, version + 1, {"version": version + 1, **changes})
    (aside / MODEL / str(version + 1)).rename(store / MODEL / str(version + 1))
    shutil.rmtree(aside)
    return version + 1


def edit_manifest(store: Path, version: int, changes: Mapping[str, Any]) -> None:
    """Changes fields of a manifest in place, as no release of this project would."""
    path = store / MODEL / str(version) / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")
