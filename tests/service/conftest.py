"""Services that run for the tests."""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from service import registry
from service.forks import Forks
from tests.support.browser import Browser, chromium, opened
from tests.support.connections import TIMEOUT_MS, of_few
from tests.support.models import NAME, TWO_HEADS
from tests.support.service import (
    ROOT,
    FakeRuntimes,
    Service,
    process,
    run_python,
    serving,
    settings_for,
)


@pytest.fixture(scope="session")
def service(model_store: Path) -> Iterator[Service]:
    """The shipped model on LiteRT; shared, so tests must leave it as it is."""
    with serving(settings_for(model_store)) as running:
        yield running


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of :mod:`tests.support.models`; shared, so tests must leave them as they are."""
    if find_spec("tensorflow") is None:
        pytest.skip("TensorFlow, which builds the tiny models, is not installed")
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        # One of the processes that run tests makes them for all: it takes TensorFlow ten seconds.
        folder = folder.parent
    store = folder / "tiny-store"
    with (folder / "tiny-store.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not store.exists():
            made = tmp_path_factory.mktemp("tiny") / "store"
            run_python("-m", "tests.support.models", str(made))
            # Whole, or not there.
            made.rename(store)
    return store


@pytest.fixture(scope="session")
def two_heads(tiny_store: Path) -> Iterator[Service]:
    """A service of the tiny model with every output and record; shared, so to be left as it is."""
    with serving(settings_for(tiny_store, model=NAME, model_version=str(TWO_HEADS))) as running:
        yield running


@pytest.fixture
def runtimes() -> FakeRuntimes:
    """Runtimes that misbehave on command."""
    return FakeRuntimes()


@pytest.fixture
def strict(model_store: Path, runtimes: FakeRuntimes) -> Iterator[Service]:
    """A service of four connections that waits for nobody for long."""
    limits = {"header_timeout_ms": TIMEOUT_MS, "body_timeout_ms": TIMEOUT_MS}
    with of_few(model_store, runtimes, **limits) as running:
        yield running


@pytest.fixture
def crowded(model_store: Path, runtimes: FakeRuntimes) -> Iterator[Service]:
    """A service of four connections that waits for who is slow."""
    with of_few(model_store, runtimes, header_timeout_ms=60_000) as running:
        yield running


@pytest.fixture(scope="module")
def url(model_store: Path) -> Iterator[str]:
    """A service in a process of its own."""
    with process(model_store, BRAIN_LOG_LEVEL="error") as (_, port):
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def chromium_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chromium")


@pytest.fixture(scope="module")
def shared_browser(chromium_folder: Path) -> Iterator[Browser]:
    with chromium(chromium_folder) as browser:
        yield browser


@pytest.fixture
def browser(shared_browser: Browser, url: str) -> Browser:
    """A browser that has just opened the page and seen the service ready."""
    return opened(shared_browser, url)


@pytest.fixture
def folder(tmp_path: Path, slices: Sequence[Path]) -> Path:
    """Four slices, a DICOM object, and three files that are none, under names that do harm."""
    folder = tmp_path / "study"
    folder.mkdir()
    for path in slices[::2]:
        shutil.copy(path, folder)
    shutil.copy(ROOT / "tests/data/dicom/axial_t1_defaced_0220.dcm", folder / "=1+1")
    (folder / "cut.jpg").write_bytes(slices[0].read_bytes()[:9000])
    (folder / "empty.png").write_bytes(b"")
    (folder / "<img src=x onerror='window.harm=1'>.jpg").write_text(
        "<script>window.harm=1</script>"
    )
    return folder


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers do what pictures and masks tell them."""
    monkeypatch.setattr(registry, "Forks", partial(Forks, "tests.support.broken_worker"))
