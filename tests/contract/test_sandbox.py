"""A function in a process of its own: whatever it does, the caller gets an error and goes on."""

import errno
import json
import mmap
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contract import sandbox
from contract.errors import (
    DecodeError,
    DecoderCrashed,
    DecoderOutOfMemory,
    DecoderTimedOut,
    DecoderUnavailable,
    UndecodableImage,
)
from contract.sandbox import Sandbox
from tests.support.faults import start_time
from tests.support.service import PATIENCE_SECONDS, ROOT, wait_until

TARGET = "tests.support.faults:act"
SECONDS = PATIENCE_SECONDS
MEMORY_BYTES = 2**28


@pytest.fixture
def box() -> Iterator[Sandbox]:
    running = Sandbox(TARGET, MEMORY_BYTES)
    yield running
    running.close()


def call(box: Sandbox, message: bytes = b"abc", seconds: float = SECONDS) -> bytes:
    return box.call(message, 2**20, seconds)


def mapped(child: int) -> int:
    """Bytes of address space."""
    return int(Path(f"/proc/{child}/statm").read_text("ascii").split()[0]) * mmap.PAGESIZE


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("abort", DecoderCrashed),
        ("segfault", DecoderCrashed),
        ("hang", DecoderTimedOut),
        ("memory", DecoderOutOfMemory),
        ("memory-c", DecoderCrashed),
        ("raise", UndecodableImage),
        ("leave", UndecodableImage),
        ("exit", DecoderCrashed),
        ("exit-oddly", DecoderCrashed),
        ("kill-parent", DecoderCrashed),
        ("write", DecoderCrashed),
    ],
)
def test_fault_has_its_error_and_the_next_call_works(
    box: Sandbox, fault: str, error: type[DecodeError]
) -> None:
    assert call(box) == b"cba"
    (child,) = box.children
    with pytest.raises(error) as caught:
        call(box, fault.encode(), seconds=0.3 if fault == "hang" else SECONDS)
    assert "PLANTED" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert call(box) == b"cba"
    assert (box.children == [child]) == (fault != "kill-parent")


def test_child_that_stands_still_is_replaced(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    call(box)
    (child,) = box.children
    born = start_time(child)
    monkeypatch.setattr(sandbox, "GRACE_SECONDS", 0.5)
    with pytest.raises(DecoderTimedOut):
        call(box, b"stop-parent", seconds=0.2)
    assert start_time(child) != born
    monkeypatch.undo()
    assert call(box) == b"cba"


def test_deadline_is_that_of_the_call(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child keeps it by itself, long before it would be replaced."""
    call(box)
    before = box.children
    monkeypatch.setattr(sandbox, "GRACE_SECONDS", 3.0)
    with pytest.raises(DecoderTimedOut):
        call(box, b"hang", seconds=0.4)
    assert box.children == before


def test_answer_that_is_too_long(box: Sandbox) -> None:
    assert box.call(b"x" * 100, 100, seconds=SECONDS) == b"x" * 100
    with pytest.raises(UndecodableImage):
        box.call(b"x" * 100, 99, seconds=SECONDS)


def test_large_messages_go_both_ways(box: Sandbox) -> None:
    message = os.urandom(5_000_000)
    assert box.call(message, len(message), seconds=SECONDS) == message[::-1]
    assert box.call(b"", 0, seconds=SECONDS) == b""


def test_nothing_of_a_call_is_left_for_the_next(box: Sandbox) -> None:
    assert [call(box, b"count") for _ in range(3)] == [b"1"] * 3


def test_what_it_prints_goes_nowhere(box: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(box, b"print") == b"tnirp"
    assert tuple(capfd.readouterr()) == ("", "")


def test_it_gets_no_secrets_and_no_files(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAIN_SECRET", "PLANTED")
    environment = json.loads(call(box, b"environment"))
    assert "PLANTED" not in environment.values()
    assert not [name for name in environment if name.startswith("BRAIN_")]
    # The three standard ones.
    assert json.loads(call(box, b"files")) == [0, 1, 2]


def test_it_opens_and_starts_nothing(box: Sandbox) -> None:
    assert json.loads(call(box, b"attempts")) == {
        "read": "EMFILE",
        "write": "EMFILE",
        "connect": "EMFILE",
        "fork": "EAGAIN",
    }


def test_child_that_died_while_idle_is_replaced(box: Sandbox) -> None:
    call(box)
    (child,) = box.children
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: start_time(child) is None)
    assert call(box) == b"cba"
    assert box.children != [child]


def test_threads_share_the_children(box: Sandbox) -> None:
    faults = [b"abort", b"raise", b"abc", b"exit-oddly", b"memory", b"abc"] * 5

    def outcome(message: bytes) -> str:
        try:
            return call(box, message).decode()
        except DecodeError as error:
            return error.code

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(outcome, faults))
    assert (
        found
        == [
            "decoder_crashed",
            "undecodable_image",
            "cba",
            "decoder_crashed",
            "decoder_out_of_memory",
            "cba",
        ]
        * 5
    )
    assert 1 <= len(box.children) <= 4


def test_no_zombies_and_no_open_files_are_left(box: Sandbox) -> None:
    before = open_files()
    pids = set()
    for fault in (b"abort", b"kill-parent", b"raise", b"exit-oddly", b"kill-parent"):
        call(box)
        pids.update(box.children)
        with pytest.raises(DecodeError):
            call(box, fault)
    pids.update(box.children)
    box.close()
    assert open_files() == before
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def test_closed_one_starts_again(box: Sandbox) -> None:
    call(box)
    (child,) = box.children
    box.close()
    assert box.children == []
    assert start_time(child) is None
    assert call(box) == b"cba"


def test_child_that_is_busy_while_closing_ends_afterwards(box: Sandbox) -> None:
    call(box)
    before = open_files()
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(call, box, b"hang", 0.5)
        wait_until(lambda: not box.children)
        box.close()
        with pytest.raises(DecoderTimedOut):
            busy.result()
    assert box.children == []
    assert open_files() < before


def test_nothing_to_run() -> None:
    before = open_files()
    with pytest.raises(DecoderUnavailable):
        Sandbox("tests.support.faults:absent").call(b"", 0, seconds=SECONDS)
    assert open_files() == before


def test_no_process_to_be_had(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(DecoderUnavailable):
        call(box)
    monkeypatch.undo()
    assert call(box) == b"cba"


def test_no_process_to_be_had_for_a_call() -> None:
    """It says nothing of the message, and its child goes on."""
    box = Sandbox("tests.support.no_forks:act", MEMORY_BYTES)
    try:
        with pytest.raises(DecoderUnavailable):
            call(box)
        before = box.children
        assert call(box) == b"cba"
        assert box.children == before
    finally:
        box.close()


def test_no_memory_to_be_had_for_a_call(box: Sandbox) -> None:
    call(box)
    before = box.children
    limits = (mapped(before[0]) + 2**25, resource.RLIM_INFINITY)
    usual = resource.prlimit(before[0], resource.RLIMIT_AS, limits)
    # For its answer, and for what it says.
    for message, limit in ((b"abc", 2**26), (bytes(2**26), 2**20)):
        with pytest.raises(DecoderUnavailable):
            box.call(message, limit, SECONDS)
    resource.prlimit(before[0], resource.RLIMIT_AS, usual)
    assert call(box) == b"cba"
    assert box.children == before


def test_a_limit_of_memory_that_is_smaller_already_stays(box: Sandbox) -> None:
    """Such as ``ulimit -v`` or ``LimitAS=``, which none but root may raise again."""
    call(box)
    (child,) = box.children
    limits = (mapped(child) + MEMORY_BYTES // 2,) * 2
    resource.prlimit(child, resource.RLIMIT_AS, limits)
    assert json.loads(call(box, b"limit")) == [*limits]


def test_no_file_to_be_had(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(sandbox, "socketpair", refuse)
    with pytest.raises(DecoderUnavailable):
        call(box)
    monkeypatch.undo()
    assert call(box) == b"cba"


@pytest.mark.parametrize("message", ["abc", "hang"])
def test_child_ends_with_its_parent(message: str) -> None:
    """Even if the parent is killed in the middle of a call, and cannot tidy up."""
    program = f"""
import threading
from contract.sandbox import Sandbox
box = Sandbox("{TARGET}")
box.call(b"abc", 9, seconds=30)
print(box.children[0], flush=True)
box.call({message.encode()!r}, 9, seconds=1)
threading.Event().wait()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        born = start_time(child)
        assert born is not None
        parent.kill()
    wait_until(lambda: start_time(child) != born)


def test_interrupt_at_a_terminal_leaves_it_alone(box: Sandbox) -> None:
    call(box)
    (child,) = box.children
    assert os.getpgid(child) != os.getpgid(0)


def test_signal_to_stop_leaves_it_alone(box: Sandbox) -> None:
    """A supervisor may send it to every process, while the service finishes what it has accepted."""
    call(box)
    (child,) = box.children
    os.kill(child, signal.SIGTERM)
    assert call(box)
    assert box.children == [child]
