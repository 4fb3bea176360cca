"""A run as Markdown: every figure in it comes from that run."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.bars import bars
from bench.contenders import TITLES, Variant
from bench.results import CLIENTS, Results, Row

MISSING = "-"
NAMES = {
    Variant.TENSORFLOW: "TensorFlow",
    Variant.LITERT: "LiteRT",
    Variant.LITERT_HALVED: "LiteRT and our decoding",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """Under what the run took place.

    Attributes:
        date: UTC.
        machine: names and values.
        command: what was typed.
        load_command: one load, its file names shortened.
        images: what was sent.
        rounds, seconds, warm_up: of each load.
        busy_shares: of the machine before each round, when nothing of the run ran.
        model: name and number of the version.
    """

    date: str
    machine: Sequence[tuple[str, str]]
    command: str
    load_command: str
    images: str
    rounds: int
    seconds: int
    warm_up: float
    busy_shares: Sequence[float]
    model: str


def render(results: Results, setting: Setting) -> str:
    """The whole report."""
    parts = [
        "# Results\n",
        _setting(setting),
        "## Bars\n",
        _bars(results),
        "## Throughput\n",
        _throughput(results),
        "## Latency and cost\n",
        _latency(results),
        "## Start, memory and size\n",
        _footprint(results),
        "## Ratios\n",
        _ratios(results),
        "## Configurations\n",
        _configurations(results),
    ]
    return "\n".join(parts)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all but the first column to the right."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def title(row: Row) -> str:
    """How a row is named in a table."""
    kind = "" if row.variant is None else f", {NAMES[row.variant]}"
    name = f"**{row.name}**" if row.variant is None else row.name
    return f"{name}{kind} ({row.form})"


def _setting(setting: Setting) -> str:
    busy = max(setting.busy_shares, default=0.0)
    lines = [
        ("Date", f"{setting.date} (UTC)"),
        *setting.machine,
        ("Model", setting.model),
        ("Images", setting.images),
        ("Command", f"`{setting.command}`"),
        ("Load", f"`{setting.load_command}`"),
        ("Other load on the machine", f"at most {busy:.1%} of its cores, before each round"),
    ]
    text = (
        f"\nWritten by `make bench`; no figure is typed in. Servers and the bare loop ran one after "
        f"the other on the same machine in {setting.rounds} round(s), in another order each time, "
        f"every server started anew in each. A load took {setting.seconds} s, of which the first "
        f"{setting.warm_up} s do not count, after a warm-up at {max(CLIENTS)} clients. A figure is the "
        f"median of the rounds, with the lowest and the highest in brackets. Every answer was checked "
        f"for its label; wrong ones do not count.\n"
    )
    return table(("what", "value"), lines).replace("---:", "---") + text


def _bars(results: Results) -> str:
    services = results.finished(None)
    if not services:
        return "This service was not part of the run.\n"
    parts = []
    for row in services:
        lines = [
            (bar.what, f"{bar.value:.2f}{bar.unit}", bar.limit_text, bar.verdict, bar.against)
            for bar in bars(row, results)
        ]
        head = (f"{row.name} ({row.form})", "value", "bar", "", "compared with")
        parts.append(table(head, lines))
    return "\n".join(parts)


def _throughput(results: Results) -> str:
    def line(row: Row) -> list[str]:
        if not row.samples:
            return [title(row), *(MISSING for _ in CLIENTS), row.failure or MISSING]
        return [
            title(row),
            *(row.throughput(clients).text() for clients in CLIENTS),
            str(row.refused()),
        ]

    head = ("right answers a second", *(_clients(n) for n in CLIENTS), "wrong or broken")
    text = table(head, [line(row) for row in results.rows])
    loops = [
        (
            f"{ceiling.variant}, {ceiling.mode}",
            f"{min(ceiling.rates):.0f}-{max(ceiling.rates):.0f}" if ceiling.rates else MISSING,
            f"{results.ceiling(ceiling.variant):.0f}",
            ceiling.failure or "",
        )
        for ceiling in results.ceilings
    ]
    head = ("bare loop, both cores, no HTTP", "images/s", "ceiling", "failed")
    return text + "\n" + table(head, loops)


def _latency(results: Results) -> str:
    head = (
        "milliseconds",
        *(f"p50 at {_clients(n)}" for n in CLIENTS),
        *(f"p99 at {_clients(n)}" for n in CLIENTS),
        f"CPU an answer at {_clients(max(CLIENTS))}",
    )
    lines = [
        [
            title(row),
            *(row.latency_ms(clients, 50).text(1) for clients in CLIENTS),
            *(row.latency_ms(clients, 99).text(1) for clients in CLIENTS),
            row.cpu_ms(max(CLIENTS)).text(2),
        ]
        for row in results.rows
        if row.samples
    ]
    return table(head, lines)


def _footprint(results: Results) -> str:
    head = ("", "cold start, s", "PSS, MB", "RSS, MB", "environment, MB")
    lines = [
        [
            title(row),
            row.cold_seconds().text(2),
            row.proportional_mb().text(),
            row.resident_mb().text(),
            f"{row.environment_bytes / 1e6:.0f}",
        ]
        for row in results.rows
        if row.samples
    ]
    note = (
        "\nCold start: from the start of the process to its first right answer. PSS and RSS: the whole "
        "process tree after the load; RSS counts pages that processes share once for each of them. "
        "MB: 10^6 bytes.\n"
    )
    return table(head, lines) + note


def _ratios(results: Results) -> str:
    services = results.finished(None)
    peers = [row for row in results.rows if row.variant is not None and row.samples]
    head = (
        "throughput of this service, as a multiple",
        *(f"{row.form}, {_clients(n)}" for row in services for n in CLIENTS),
    )
    lines = [
        [
            title(peer),
            *(
                f"{row.throughput(n).median / max(peer.throughput(n).median, 1e-9):.2f}"
                for row in services
                for n in CLIENTS
            ),
        ]
        for peer in peers
    ]
    return table(head, lines)


def _configurations(results: Results) -> str:
    parts = []
    for variant, words in ((None, "This service"), *TITLES.items()):
        rows = [row for row in results.rows if row.variant is variant]
        if rows:
            parts.append(f"{words[0].upper()}{words[1:]}:\n")
            parts += [_configuration(row) for row in rows]
            parts.append("")
    return "\n".join(parts)


def _configuration(row: Row) -> str:
    text = f"- {row.name} {row.version}, {row.form}: {row.configuration}."
    return f"{text} **Failed: {row.failure}**" if row.failure else text


def _clients(count: int) -> str:
    return f"{count} client{'' if count == 1 else 's'}"
