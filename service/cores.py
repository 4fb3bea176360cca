"""How many processor cores this process may use."""

import os
from pathlib import Path
from typing import Final

CGROUP_CPU_MAX: Final = Path("/sys/fs/cgroup/cpu.max")
"""Quota and period of the container, in microseconds (Linux, Control Group v2, cpu.max)."""


def available_cores(cpu_max: Path = CGROUP_CPU_MAX) -> int:
    """Cores that affinity and the container's quota leave to this process; at least 1.

    The machine's core count is the wrong number in a container: twice as many threads as cores make
    the service slower, and a quota is not seen in it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
        limit = int(quota) / int(period)
    except (OSError, ValueError):
        # No container, or the quota is "max".
        return cores or 1
    return max(1, min(cores or 1, round(limit)))
