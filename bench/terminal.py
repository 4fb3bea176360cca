"""What a person at the terminal asks of the measurements, and what these tell while they run."""

import sys


def positive(text: str) -> int:
    """A whole number of at least one: type of a command line's options.

    Raises:
        ValueError: it is none.
    """
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def say(text: str) -> None:
    """Tells the person at the terminal, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
