"""What a run saw: a sample for each contender, form and round; a row for each contender and form."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.contenders import Variant
from bench.forms import Form
from bench.processes import Memory
from bench.server import Driven
from bench.summary import Figure, percentile

CLIENTS: Final = (1, 8, 32)


@dataclass(frozen=True, slots=True)
class Sample:
    """One contender in one round, with one form of body.

    Attributes:
        driven: by number of clients.
        cold_seconds: from process start to the first right answer.
        memory: after the load.
    """

    driven: dict[int, Driven]
    cold_seconds: float
    memory: Memory


@dataclass(slots=True)
class Row:
    """One contender with one form of body.

    Attributes:
        name, version: of the server.
        variant: None for this service.
        environment_bytes: what is installed for it.
        failure: why it has no figures, or lost a round.
        samples: one for each round that it finished.
    """

    key: str
    name: str
    version: str
    variant: Variant | None
    form: Form
    configuration: str
    environment_bytes: int = 0
    failure: str | None = None
    samples: list[Sample] = field(default_factory=list)

    def figure(self, value: Callable[[Sample], float]) -> Figure:
        """A figure over its rounds."""
        return Figure.of([value(sample) for sample in self.samples])

    def throughput(self, clients: int) -> Figure:
        """Right answers a second."""
        return self.figure(lambda sample: sample.driven[clients].measurement.throughput)

    def latency_ms(self, clients: int, percent: float) -> Figure:
        """A percentile of the latencies."""
        return self.figure(
            lambda sample: (
                percentile(sample.driven[clients].measurement.latencies_us, percent) / 1000
            )
        )

    def cpu_ms(self, clients: int) -> Figure:
        """Processor time of the server for an answer."""
        return self.figure(lambda sample: sample.driven[clients].cpu_ms)

    def cold_seconds(self) -> Figure:
        """Process start to first answer."""
        return self.figure(lambda sample: sample.cold_seconds)

    def resident_mb(self) -> Figure:
        """Resident sets of the whole process tree, 10^6 bytes."""
        return self.figure(lambda sample: sample.memory.resident / 1e6)

    def proportional_mb(self) -> Figure:
        """Proportional sets of the whole process tree, 10^6 bytes."""
        return self.figure(lambda sample: sample.memory.proportional / 1e6)

    def refused(self) -> int:
        """Wrong answers and broken connections, all rounds."""
        measurements = [driven.measurement for s in self.samples for driven in s.driven.values()]
        return sum(m.wrong + m.broken for m in measurements)


@dataclass(slots=True)
class Ceiling:
    """The bare loop in one mode.

    Attributes:
        rates: images a second, one for each round.
    """

    variant: Variant
    mode: str
    failure: str | None = None
    rates: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Results:
    """A whole run."""

    rows: list[Row]
    ceilings: list[Ceiling]

    def finished(self, variant: Variant | None) -> list[Row]:
        """Rows of a variant that have figures."""
        return [row for row in self.rows if row.variant is variant and row.samples]

    def ceiling(self, variant: Variant) -> float:
        """The best mode's median; 0 if there is none."""
        rates = [
            Figure.of(ceiling.rates).median
            for ceiling in self.ceilings
            if ceiling.variant is variant and ceiling.rates
        ]
        return max(rates, default=0.0)


def best(rows: Sequence[Row], value: Callable[[Row], float], *, highest: bool) -> Row | None:
    """The row that is ahead; None if there is none."""
    if not rows:
        return None
    return max(rows, key=value) if highest else min(rows, key=value)
