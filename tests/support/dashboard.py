"""The Grafana dashboard of ``deploy/grafana``, taken apart."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tests.support.service import ROOT

PATH = ROOT / "deploy" / "grafana" / "dashboards" / "brain-mri.json"

OF_PROMETHEUS = {"up", "ALERTS"}
"""What no service exposes: Prometheus makes them itself (its documentation, "Jobs and instances" and
"Alerting rules")."""

DURATION = r"\[[^\]]*\]"

Json = dict[str, Any]


class Selector(NamedTuple):
    """A metric and its matchers, each a label, an operator and a value."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]


def dashboard() -> Json:
    """All of it."""
    content: Json = json.loads(PATH.read_text("utf-8"))
    return content


def panels() -> list[Json]:
    """Those that show something, which rows do not."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions(panel: Json) -> list[str]:
    """What a panel asks for, with Grafana's variables."""
    return [target["expr"] for target in panel["targets"]]


def filled(text: str, variables: Mapping[str, str]) -> str:
    """A text in which variables stand for themselves no longer."""
    for name, value in variables.items():
        text = re.sub(rf"\${name}\b|\${{{name}}}", value, text)
    assert "$" not in text, f"a variable is left: {text}"
    return text


def selectors(expression: str) -> Iterator[Selector]:
    """All of an expression, which must have braces wherever it names a metric."""
    for metric, inside in re.findall(r"(\w+)\{([^}]*)\}", expression):
        matchers = re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', inside)
        yield Selector(metric, tuple(matchers))


def grouping_labels(expression: str) -> set[str]:
    """Labels that an expression sums by or matches on."""
    lists = re.findall(r"\b(?:by|on|without|ignoring|group_left)\s*\(([^)]*)\)", expression)
    return {label.strip() for names in lists for label in names.split(",") if label.strip()}


def legend_labels(target: Json) -> set[str]:
    """Labels that a legend shows."""
    return set(re.findall(r"\{\{\s*(\w+)\s*\}\}", target["legendFormat"]))


def bare(expression: str) -> str:
    """An expression without matchers, windows and texts: names, numbers and operators."""
    return re.sub(rf'\{{[^}}]*\}}|{DURATION}|"[^"]*"', " ", expression)
