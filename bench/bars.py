"""The bars that this service has set itself, as ratios within one run."""

import math
from dataclasses import dataclass
from typing import Final

from bench.contenders import Variant
from bench.results import Results, Row, best
from bench.summary import ratio

LEAST_OVER: Final = {
    Variant.TENSORFLOW: 3.5,
    Variant.LITERT: 1.3,
    # For information: those peers have a part of this service.
    Variant.LITERT_HALVED: -math.inf,
}
LEAST_OF_CEILING: Final = 0.75
MOST_OF_P50: Final = 0.25
MOST_OF_P99: Final = 1 / 3
MOST_COLD_SECONDS: Final = 1.5
MOST_MEMORY_MB: Final = 250.0
MOST_ENVIRONMENT_MB: Final = 400.0

LOADED: Final = (8, 32)
"""Clients at which throughput counts."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar and where this service stands with one form of body.

    Attributes:
        what: in words.
        value: of this service.
        limit: the bar.
        at_least: the value must reach the limit, else it must not exceed it.
        unit: behind both.
        against: whom it is compared with.
    """

    what: str
    value: float
    limit: float
    at_least: bool
    unit: str
    against: str

    @property
    def holds(self) -> bool:
        """Whether it is met; never on a value that is not a number."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def verdict(self) -> str:
        """``holds``, ``missed``, or nothing where there is no bar."""
        if math.isinf(self.limit):
            return ""
        return "holds" if self.holds else "**missed**"

    @property
    def limit_text(self) -> str:
        """The bar in words; nothing where there is none."""
        if math.isinf(self.limit):
            return ""
        return f"{'at least' if self.at_least else 'at most'} {self.limit:.2f}{self.unit}"


def bars(service: Row, results: Results) -> list[Bar]:
    """Every bar that the run has the figures for."""
    found = []
    for clients in LOADED:
        own = service.throughput(clients).median
        found += _throughput(own, clients, results)
        ceiling = results.ceiling(Variant.LITERT_HALVED)
        if ceiling:
            found.append(
                Bar(
                    f"throughput at {clients} clients, of the bare loop",
                    *(ratio(own, ceiling), LEAST_OF_CEILING, True, ""),
                    f"bare loop, {ceiling:.0f}/s",
                )
            )
    found += _latency(service, results, 1, 50, MOST_OF_P50)
    found += _latency(service, results, 32, 99, MOST_OF_P99)
    cold, memory = service.cold_seconds().median, service.proportional_mb().median
    size = service.environment_bytes / 1e6
    return [
        *found,
        Bar("cold start", cold, MOST_COLD_SECONDS, False, " s", "-"),
        Bar("memory (PSS)", memory, MOST_MEMORY_MB, False, " MB", "-"),
        Bar("environment", size, MOST_ENVIRONMENT_MB, False, " MB", "-"),
    ]


def _throughput(own: float, clients: int, results: Results) -> list[Bar]:
    found = []
    for variant, limit in LEAST_OVER.items():
        peer = best(
            results.finished(variant), lambda row: row.throughput(clients).median, highest=True
        )
        if peer is not None:
            other = peer.throughput(clients).median
            found.append(
                Bar(
                    f"throughput at {clients} clients, over the best {variant} peer",
                    *(ratio(own, other), limit, True, ""),
                    f"{peer.name}, {other:.0f}/s",
                )
            )
    return found


def _latency(
    service: Row, results: Results, clients: int, percent: float, limit: float
) -> list[Bar]:
    def value(row: Row) -> float:
        return row.latency_ms(clients, percent).median

    found = []
    for variant in Variant:
        peer = best(results.finished(variant), value, highest=False)
        # The bar is against peers as their users deploy them; the other ratio is for information.
        bound = limit if variant is Variant.TENSORFLOW else math.inf
        if peer is not None:
            found.append(
                Bar(
                    f"p{percent:.0f} at {clients} client(s), of the best {variant} peer's",
                    *(ratio(value(service), value(peer)), bound, False, ""),
                    f"{peer.name}, {value(peer):.1f} ms",
                )
            )
    return found
