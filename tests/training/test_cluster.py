"""Workers that share a run find each other, or say who is missing."""

import json
import socket
import threading
from time import monotonic

import pytest

from scripts.ports import free_port
from training.cluster import Cluster, await_workers, cluster
from training.errors import StrategyError


def test_workers_wait_until_all_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    workers = tuple(f"127.0.0.1:{free_port()}" for _ in range(3))
    threads = [
        threading.Thread(target=await_workers, args=(Cluster(workers, place), 30))
        for place in range(3)
    ]
    for thread in threads[:2]:
        thread.start()
    threads[0].join(timeout=1)
    assert threads[0].is_alive()
    # As TensorFlow does, the last one listens from here on.
    with socket.create_server(("127.0.0.1", int(workers[2].split(":")[1]))):
        for thread in threads[:2]:
            thread.join(timeout=30)
            assert not thread.is_alive()
    assert f"waiting for 2 workers at {workers[1]}, {workers[2]}" in capsys.readouterr().out


def test_a_worker_that_never_comes_is_named() -> None:
    workers = tuple(f"127.0.0.1:{free_port()}" for _ in range(2))
    began = monotonic()
    with pytest.raises(StrategyError, match=rf"no worker at {workers[1]} within 1 s"):
        await_workers(Cluster(workers, 0), 1)
    assert 1 <= monotonic() - began < 10


def test_a_port_that_is_taken_is_named() -> None:
    port = free_port()
    with (
        socket.create_server(("", port)),
        pytest.raises(StrategyError, match=f"port {port} of this worker cannot be used"),
    ):
        await_workers(Cluster((f"127.0.0.1:{port}", "127.0.0.1:1"), 0), 1)


def test_one_worker_waits_for_nobody() -> None:
    await_workers(Cluster(("nowhere:1",), 0), 0)


@pytest.mark.parametrize("address", ["a", "a:b", "a:0", "a:65536", 7])
def test_an_address_without_a_port_is_refused(
    address: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = {"type": "worker", "index": 0}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": [address]}, "task": task}))
    with pytest.raises(StrategyError, match="HOST:PORT"):
        cluster()
