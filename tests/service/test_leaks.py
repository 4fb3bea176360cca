"""What a service holds on to: nothing of a request that has ended, however it ended."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from bench.soak import Held
from tests.support.service import process, wait_until

CLIENTS = 8
REQUESTS = 60
"""Of each client; ``python -m bench.soak`` sends many more."""


def test_threads_files_and_tasks_are_given_back(model_store: Path, slices: Sequence[Path]) -> None:
    whole = slices[0].read_bytes()
    bodies = [whole, whole[:9000], b"junk"]

    def client(requests: int) -> set[int]:
        # A connection is closed with its client.
        with httpx.Client(headers={"Content-Type": "image/jpeg"}, timeout=60) as connection:
            return {
                connection.post(url, content=bodies[number % len(bodies)]).status_code
                for number in range(requests)
            }

    with (
        process(model_store, BRAIN_WORKERS="2", BRAIN_LOG_LEVEL="error") as (child, port),
        ThreadPoolExecutor(CLIENTS) as clients,
    ):
        base = f"http://127.0.0.1:{port}"
        url = f"{base}/predict"
        # Workers come after the service is ready.
        wait_until(lambda: "brain_workers 2.0" in httpx.get(f"{base}/metrics").text)
        list(clients.map(client, [len(bodies)] * CLIENTS))
        idle = settled(child.pid, port)
        assert set().union(*clients.map(client, [REQUESTS] * CLIENTS)) == {200, 422, 415}
        wait_until(lambda: Held.by(child.pid, port).files <= idle.files)
        left = settled(child.pid, port)
        assert left.processes <= idle.processes
        assert left.threads <= idle.threads
        assert left.tasks <= idle.tasks


def settled(process_id: int, port: int) -> Held:
    """What a process holds once its last connections are closed: the same at two looks."""
    seen = [Held.by(process_id, port)]

    def same() -> bool:
        seen.append(Held.by(process_id, port))
        return (seen[-1].files, seen[-1].tasks) == (seen[-2].files, seen[-2].tasks)

    wait_until(same)
    return seen[-1]
