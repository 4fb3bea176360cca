"""A server's processes: started, measured and ended as a whole tree (Linux, /proc)."""

import ctypes
import os
import secrets
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from types import FrameType
from typing import Final

PR_SET_CHILD_SUBREAPER: Final = 36
"""See prctl(2): orphaned descendants become this process' children, so none is lost sight of."""

STOP_SECONDS: Final = 15.0
"""How long a server may take to end after SIGTERM."""

MARK: Final = "BENCH_TREE"
"""Environment variable of a token that a server and what it starts have in common."""

PARENT: Final = 1
SESSION: Final = 3
"""Places after the state; see proc(5), /proc/PID/stat."""

TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Memory:
    """Of all processes of a server, in bytes.

    Attributes:
        resident: sum of the resident sets, which counts shared pages once for each process.
        proportional: sum of the proportional sets (PSS), which counts them once.
    """

    resident: int
    proportional: int


def adopt_orphans() -> None:
    """Makes this process the reaper of everything it starts."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def take_charge() -> None:
    """Adopts orphans, and lets SIGTERM end this process as Ctrl-C does: servers are stopped first."""
    adopt_orphans()
    signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, _frame: FrameType | None) -> None:
    # timeout(1) sends it twice; the second one must not break off what the first one began.
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


class Tree:
    """A server and all that it started, also what its parent has left behind.

    Args:
        command: the command line.
        environment: the whole environment.
        folder: where it runs.
        log: gets its output.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path
    ) -> None:
        self.started = monotonic()
        token = secrets.token_hex()
        self._mark = f"{MARK}={token}".encode()
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603
                command,
                env={**environment, MARK: token},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._sessions = {self._process.pid}

    def alive(self) -> bool:
        """Whether the first process still runs."""
        return self._process.poll() is None

    @property
    def process_id(self) -> int:
        """Of the process that the command started."""
        return self._process.pid

    def memory(self) -> Memory:
        """What the tree holds now."""
        return memory(self._processes())

    def cpu_seconds(self) -> float:
        """Processor time of the tree so far, of processes that still run."""
        return sum(cpu_seconds(pid) for pid in self._processes())

    def stop(self) -> None:
        """SIGTERM to the first process, and SIGKILL to whatever is left after a while."""
        try:
            self._processes()
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGTERM)
            deadline = monotonic() + STOP_SECONDS
            while self._running() and monotonic() < deadline:
                sleep(0.05)
        finally:
            # Also where SIGTERM or Ctrl-C breaks off the wait.
            while left := self._running():
                for pid in left:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                sleep(0.05)

    def _processes(self) -> list[int]:
        """Those with the mark or below the first one, and all of a session where one was seen.

        A process that names itself (Ray's do) may write over its environment, and so over the mark.
        """
        sessions = _fields(SESSION)
        found = {pid for pid in sessions if self._mark in _environment(pid)}
        if self.alive():
            found.update(descendants(self._process.pid))
        self._sessions |= {sessions[pid] for pid in found if pid in sessions}
        return [pid for pid, session in sessions.items() if session in self._sessions]

    def _running(self) -> list[int]:
        left = []
        for pid in self._processes():
            if pid != self._process.pid:
                with suppress(ChildProcessError):
                    # An adopted orphan that has ended is reaped here; others are not ours to reap.
                    if os.waitpid(pid, os.WNOHANG)[0]:
                        continue
            left.append(pid)
        return left


def descendants(root: int) -> list[int]:
    """Every process below ``root``, without itself."""
    children: dict[int, list[int]] = {}
    for pid, parent in _fields(PARENT).items():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def started_since(before: Iterable[int]) -> list[int]:
    """Every process below this one, but for those that were there, and what is below these."""
    older = {pid for root in before for pid in (root, *descendants(root))}
    return [pid for pid in descendants(os.getpid()) if pid not in older]


def memory(pids: Iterable[int]) -> Memory:
    """What processes hold together; one that has ended holds nothing."""
    resident = proportional = 0
    for pid in pids:
        with suppress(OSError):
            fields = _rollup(pid)
            resident += fields["Rss"]
            proportional += fields["Pss"]
    return Memory(resident, proportional)


def cpu_seconds(pid: int) -> float:
    """User and system time of one process, and of its children that it has waited for."""
    try:
        fields = _stat(pid)
    except OSError:
        return 0.0
    # proc(5): utime, stime, cutime, cstime are fields 14 to 17; state is field 3.
    return sum(int(field) for field in fields[11:15]) / TICKS_PER_SECOND


def _fields(place: int) -> dict[int, int]:
    """One field of every process, as :func:`_stat` counts them."""
    found = {}
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            with suppress(OSError):
                found[int(path.name)] = int(_stat(int(path.name))[place])
    return found


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; the name before it may hold spaces."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return text.rpartition(")")[2].split()


def _environment(pid: int) -> list[bytes]:
    """What a process was started with; nothing where it has ended or belongs to somebody else."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _rollup(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    pairs = (line.split()[:2] for line in lines)
    return {name.rstrip(":"): int(kilobytes) * 1024 for name, kilobytes in pairs}
