"""What the measurements tell while they run."""

import sys


def say(text: str) -> None:
    """Tells the person at the terminal, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
