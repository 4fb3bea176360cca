"""What the figures were taken on."""

import os
import platform
from pathlib import Path
from time import sleep

from training.processor import processor


def describe() -> list[tuple[str, str]]:
    """Name and value of what matters; nothing that names the machine itself."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        ("Processor", f"{processor()}, {cores} cores"),
        ("Memory", f"{memory:.0f} GiB"),
        ("System", f"{platform.system()} {platform.release()}"),
        ("Python", platform.python_version()),
    ]


def busy_share(seconds: float = 2.0) -> float:
    """Share of all cores' time in use, over a while in which this process only waits."""
    idle_before, total_before = _ticks()
    sleep(seconds)
    idle, total = _ticks()
    return 1 - (idle - idle_before) / max(1, total - total_before)


def _ticks() -> tuple[int, int]:
    """Idle and all ticks of all cores; fields as in proc(5), /proc/stat."""
    fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
    ticks = [int(field) for field in fields]
    return ticks[3] + ticks[4], sum(ticks)
