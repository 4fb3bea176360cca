"""A server's processes: started, measured and ended as a whole tree (Linux, /proc)."""

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Final

PR_SET_CHILD_SUBREAPER: Final = 36
"""See prctl(2): orphaned descendants become this process' children, so none is lost sight of."""

STOP_SECONDS: Final = 15.0
"""How long a server may take to end after SIGTERM."""

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


class Tree:
    """A server and all that it started; the only thing that this process has running.

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
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603
                command,
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def alive(self) -> bool:
        """Whether the first process still runs."""
        return self._process.poll() is None

    @property
    def process_id(self) -> int:
        """Of the process that the command started."""
        return self._process.pid

    def memory(self) -> Memory:
        """What the tree holds now."""
        return memory(descendants(os.getpid()))

    def cpu_seconds(self) -> float:
        """Processor time of the tree so far, of processes that still run."""
        return sum(cpu_seconds(pid) for pid in descendants(os.getpid()))

    def stop(self) -> None:
        """SIGTERM to the first process, and SIGKILL to whatever is left after a while."""
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGTERM)
        deadline = monotonic() + STOP_SECONDS
        while self._running() and monotonic() < deadline:
            sleep(0.05)
        while left := self._running():
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            sleep(0.05)

    def _running(self) -> list[int]:
        self._process.poll()
        left = []
        for pid in descendants(os.getpid()):
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
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            with suppress(OSError):
                parent = int(_stat(int(path.name))[1])
                children.setdefault(parent, []).append(int(path.name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


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


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; the name before it may hold spaces."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return text.rpartition(")")[2].split()


def _rollup(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    pairs = (line.split()[:2] for line in lines)
    return {name.rstrip(":"): int(kilobytes) * 1024 for name, kilobytes in pairs}
