"""Figures as the cells of a card's tables have them: empty where there is none."""

from collections.abc import Mapping, Sequence
from typing import Any


def plain(figures: Mapping[str, Any], name: str) -> str:
    """A figure to four digits."""
    return f"{figures[name]:.4f}" if name in figures else ""


def with_interval(
    figures: Mapping[str, Any],
    name: str,
    intervals: Mapping[str, Sequence[float]] | None = None,
) -> str:
    """A figure to four digits with its interval, if it has one.

    Args:
        figures: by name.
        name: of this one.
        intervals: 95 % limits by name; those in ``figures["interval"]`` if None.
    """
    if name not in figures:
        return ""
    text = plain(figures, name)
    limits = _wide((figures["interval"] if intervals is None else intervals).get(name))
    if limits is None:
        return text
    low, high = limits
    return f"{text} [{low:.4f}, {high:.4f}]"


def percent(share: float, limits: Sequence[float] | None, digits: int = 1) -> str:
    """A share with its interval, if it has one, in percent."""
    text, wide = f"{share:.{digits}%}", _wide(limits)
    if wide is None:
        return text
    low, high = (f"{100 * limit:.{digits}f}" for limit in wide)
    return f"{text} [{low}, {high}]"


def _wide(limits: Sequence[float] | None) -> Sequence[float] | None:
    """An interval, if it is one: reports of earlier releases have intervals of no width."""
    return limits if limits and limits[0] != limits[1] else None
