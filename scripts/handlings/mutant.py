"""What a mutant is."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """One handling, taken away.

    Attributes:
        name: the fault.
        file: where it is handled.
        old, new: the code that does, which is there once, and what takes its place.
        test: what has to fail then.
        hangs: the test may wait without end instead, for what was a limit on waiting.
    """

    name: str
    file: str
    old: str
    new: str
    test: str
    hangs: bool = False
