"""The load generator's output is read as it is meant, and nothing but loopback is ever a target."""

from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from unittest.mock import Mock

import pytest

from bench.forms import Body
from bench.load import LoadError, Measurement, Plan, command, parse, run
from bench.server import Server
from tests.support.programs import needs

DELAY_SECONDS = 0.02
STALL_SECONDS = 4.0

OUTPUT = """Running 4s test @ http://127.0.0.1:9/predict
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     8.13ms   19.62ms 157.13ms   90.68%
bench latencies_us 3000 1000
bench latencies_us
bench latencies_us 2000
bench right 4
bench broken 2
bench wrong 1 503 {"code": "queue_full"}
"""


def test_parse_joins_the_threads_and_ignores_wrk_itself() -> None:
    seen = parse(OUTPUT, 1_500_000)
    assert seen.latencies_us == (1000, 2000, 3000)
    assert (seen.wrong, seen.broken, seen.right) == (1, 2, 4)
    assert seen.first_wrong == '503 {"code": "queue_full"}'
    assert seen.throughput == pytest.approx(2.0)


def test_a_run_without_a_right_answer_has_no_throughput() -> None:
    assert parse("bench right 0\nbench broken 0\nbench wrong 7 404\n", 1).throughput == 0


@pytest.mark.parametrize("missing", ["right", "broken", "wrong"])
def test_parse_refuses_output_that_lacks_a_line(missing: str) -> None:
    lines = [line for line in OUTPUT.splitlines() if not line.startswith(f"bench {missing}")]
    with pytest.raises(LoadError, match=missing):
        parse("\n".join(lines), 1)


def test_parse_refuses_what_is_no_number() -> None:
    with pytest.raises(LoadError, match="no whole numbers"):
        parse(OUTPUT.replace("3000", "3e3"), 1)


@pytest.mark.parametrize(
    "url", ["http://192.168.0.1:80/", "http://example.org/", "http://127.0.0.1.org:1/"]
)
def test_a_load_goes_to_loopback_only(url: str) -> None:
    with pytest.raises(LoadError, match="loopback"):
        run(url, Plan(Path("plan"), "image/jpeg"), 1, 0, 1)


def test_a_client_is_a_thread_so_that_the_script_can_time_it() -> None:
    line = command("http://127.0.0.1:9/", Plan(Path("plan"), "image/jpeg"), 8, 0.5, 4)
    assert {"--threads=8", "--connections=8", "--duration=4s"} <= set(line)
    assert line[-5:] == ["plan", "image/jpeg", "8", "500000", "4000000"]


class Echo(BaseHTTPRequestHandler):
    """Answers with the body after a known delay, one body with an error, one for a second only."""

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.opened = monotonic()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        sleep(DELAY_SECONDS)
        if body == b"stall" and monotonic() > self.opened + 1:
            sleep(STALL_SECONDS)
            self.close_connection = True
        self.send_response(500 if body == b"refuse" else 200)
        self.send_header("Content-Length", str(len(body)))
        # At its end wrk waits for nothing.
        with suppress(ConnectionError):
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def echo() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@needs("wrk")
def test_wrk_sends_every_file_checks_each_answer_and_times_it(echo: str, tmp_path: Path) -> None:
    bodies = [Body(text, "text/plain") for text in (b"one", b"two", b"refuse", b"lie")]
    plan = Plan.write(tmp_path / "plan", bodies, ["^one$", "^two$", "^refuse$", "^truth$"])
    seen = run(echo, plan, 2, 0, 1)
    assert seen.latencies_us
    assert seen.latencies_us[0] >= DELAY_SECONDS * 1e6
    # Two threads take the files in turn: half of what each of them gets is refused or a lie.
    assert seen.wrong == pytest.approx(len(seen.latencies_us), abs=4)
    assert seen.first_wrong in {"500 refuse", "200 lie"}
    assert seen.broken == 0


@needs("wrk")
def test_more_clients_than_files_all_send(echo: str, tmp_path: Path) -> None:
    plan = Plan.write(tmp_path / "plan", [Body(b"one", "text/plain")], ["^one$"])
    alone, three = run(echo, plan, 1, 0, 1), run(echo, plan, 3, 0, 1)
    assert len(three.latencies_us) > 2 * len(alone.latencies_us)
    assert (three.wrong, three.broken) == (0, 0)


@needs("wrk")
@pytest.mark.parametrize("seconds", [2, 4])
def test_a_server_that_stops_answering_keeps_no_figure(
    echo: str, tmp_path: Path, seconds: int
) -> None:
    plan = Plan.write(tmp_path / "plan", [Body(b"stall", "text/plain")], ["^stall$"])
    seen = run(echo, plan, 1, 0.5, seconds)
    assert seen.right > len(seen.latencies_us) > 0
    # It answers in the first half of a second that counts.
    assert seen.throughput == pytest.approx(len(seen.latencies_us) / (seconds - 0.5))
    assert seen.throughput < 0.5 / DELAY_SECONDS
    assert seen.broken == 1


def test_what_an_answer_cost_is_over_all_of_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answered in the warm-up and then stalled had processor time for that too."""
    seen = Measurement((1000,), 3_500_000, 0, 0, "", 10)
    monkeypatch.setattr("bench.server.run", lambda *_arguments: seen)
    server = object.__new__(Server)
    server._tree, server._port = Mock(cpu_seconds=Mock(side_effect=[1.0, 1.5])), 1
    assert server.drive("/", Plan(Path("plan"), ""), 1, 0.5, 4).cpu_ms == 50
