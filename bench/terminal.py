"""What a person at the terminal asks of the measurements, and what these tell while they run."""

import argparse
import sys
from collections.abc import Callable


def positive(text: str) -> int:
    """A whole number of at least one: type of a command line's options.

    Raises:
        ValueError: it is none.
    """
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def longer_than(warm_up: float) -> Callable[[str], int]:
    """Type of a load's whole seconds, of which those of its warm-up do not count."""

    def seconds(text: str) -> int:
        number = positive(text)
        if number <= warm_up:
            raise argparse.ArgumentTypeError(f"the warm-up alone takes {warm_up:g} s: {text}")
        return number

    return seconds


def say(text: str) -> None:
    """Tells the person at the terminal, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
