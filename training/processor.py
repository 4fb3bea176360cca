"""What a measured time was measured on."""

import platform
from pathlib import Path


def processor() -> str:
    """The processor's name as Linux has it, or else the kind of machine."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text(encoding="utf-8").splitlines() if described.is_file() else []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
