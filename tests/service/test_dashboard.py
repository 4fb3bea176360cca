"""The Grafana dashboard, asked by a real Prometheus that scrapes a real service.

Grafana itself is not here. What it would send for each panel is.
"""

import math
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.dashboard import (
    OF_PROMETHEUS,
    dashboard,
    expressions,
    filled,
    grouping_labels,
    legend_labels,
    panels,
    selectors,
)
from tests.support.pacs import Pacs, pacs, pacs_settings, series, settled, stow
from tests.support.prometheus import Prometheus, needs_prometheus, prometheus
from tests.support.service import (
    MODEL,
    FakeRuntimes,
    Service,
    add_version,
    newest,
    serving,
    wait_until,
)

JOB = "brain-mri"

Labels = dict[str, set[str]]
"""Names of labels, each with the values that it has."""


class Watched(NamedTuple):
    """A service that something of each kind has happened to, and who watches it."""

    service: Service
    prometheus: Prometheus

    @property
    def variables(self) -> dict[str, str]:
        """What Grafana's variables stand for."""
        instance = ":".join(map(str, self.service.address))
        return {"job": JOB, "instance": instance, "__rate_interval": "1m"}

    def finite(self, expression: str) -> bool:
        """Whether an expression has a number now."""
        samples = self.prometheus.query(filled(expression, self.variables))
        return any(math.isfinite(float(sample["value"][1])) for sample in samples)


@pytest.fixture(scope="module")
def watched(
    model_store: Path, tmp_path_factory: pytest.TempPathFactory, jpeg: bytes
) -> Iterator[Watched]:
    """Has a shadow version, and a PACS that has taken results and refused some."""
    folder = tmp_path_factory.mktemp("watched")
    version = str(newest(model_store))
    store = folder / "store"
    shutil.copytree(model_store / MODEL / version, store / MODEL / version)
    add_version(store)
    with pacs() as destination:
        settings = pacs_settings(
            store, folder, destination.url, model_version=version, shadow_version="latest"
        )
        with (
            serving(settings, FakeRuntimes()) as service,
            prometheus(folder / "prometheus", ":".join(map(str, service.address))) as watching,
        ):
            both = Watched(service, watching)
            wait_until(lambda: both.finite("brain_shadow_info{version!=''}"))
            # What first comes with a label is no increase, until it comes again.
            for _ in range(2):
                happen(service, destination, jpeg)
                failed = service.metric("brain_outbox_failed_total", kind="SR")
                seen = f"brain_outbox_failed_total{{kind='SR'}} == {failed}"
                wait_until(partial(both.finite, seen))
            yield both


def happen(service: Service, destination: Pacs, jpeg: bytes) -> None:
    """Slices that are answered and refused, series that are delivered and whose results are not."""
    assert service.predict(jpeg, jpeg, b"junk").status_code == 200
    for destination.status in (200, 400):
        assert stow(service.client, [item.data for item in series(1)]).status_code == 200
        wait_until(lambda: settled(service))


@needs_prometheus
def test_every_expression_is_answered_with_numbers(watched: Watched) -> None:
    asked = [(panel["title"], text) for panel in panels() for text in expressions(panel)]
    assert asked
    unanswered = asked

    def all_answered() -> bool:
        unanswered[:] = [item for item in unanswered if not watched.finite(item[1])]
        return not unanswered

    try:
        wait_until(all_answered)
    except AssertionError:
        pytest.fail("\n".join(f"no number: {title}: {text}" for title, text in unanswered))


@needs_prometheus
def test_every_metric_and_label_is_exposed(watched: Watched) -> None:
    exposed = exposition(watched)
    for name in OF_PROMETHEUS:
        exposed[name] = labels_of(watched.prometheus.series(name))
    for panel in panels():
        for target in panel["targets"]:
            found = list(selectors(target["expr"]))
            assert found
            known: Labels = {}
            for metric, matchers in found:
                assert metric in exposed, f"{panel['title']}: the service has no {metric}"
                check_matchers(metric, matchers, exposed[metric])
                known |= exposed[metric]
            asked = grouping_labels(target["expr"]) | legend_labels(target)
            assert asked <= known.keys(), panel["title"]


@needs_prometheus
def test_every_column_of_a_table_is_a_label(watched: Watched) -> None:
    tables = [panel for panel in panels() if panel["type"] == "table"]
    assert tables
    for panel in tables:
        (expression,) = expressions(panel)
        (organize,) = panel["transformations"]
        samples = watched.prometheus.query(filled(expression, watched.variables))
        labels = set().union(*(sample["metric"] for sample in samples))
        assert organize["options"]["renameByName"].keys() <= labels, panel["title"]
        hidden = {name for name, is_so in organize["options"]["excludeByName"].items() if is_so}
        assert labels <= hidden | organize["options"]["renameByName"].keys(), panel["title"]


@needs_prometheus
def test_variables_find_the_service(watched: Watched) -> None:
    asked = {
        variable["name"]: variable["query"]["query"]
        for variable in dashboard()["templating"]["list"]
        if variable["type"] == "query"
    }
    assert asked.keys() == {"job", "instance"}
    for name, query in asked.items():
        match = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
        assert match, query
        selector = filled(match[1], watched.variables)
        values = {labels[match[2]] for labels in watched.prometheus.series(selector)}
        assert values == {watched.variables[name]}


def exposition(watched: Watched) -> dict[str, Labels]:
    """Names on /metrics to their labels, with those that Prometheus adds to each."""
    own = {name: {watched.variables[name]} for name in ("job", "instance")}
    text = watched.service.client.get("/metrics").text
    exposed: dict[str, Labels] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = exposed.setdefault(sample.name, dict(own))
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return exposed


def labels_of(found: list[dict[str, str]]) -> Labels:
    """Labels of series."""
    return {
        label: {item[label] for item in found if label in item} for item in found for label in item
    }


def check_matchers(metric: str, matchers: tuple[tuple[str, str, str], ...], labels: Labels) -> None:
    """Each label is there; so is each value that is named as a whole word."""
    for label, operator, value in matchers:
        assert label in labels, f"{metric} has no {label}"
        words = re.fullmatch(r"\w+(\|\w+)*", value)
        if operator in ("=", "=~") and words:
            assert set(value.split("|")) <= labels[label], f"{metric} has no such {label}"
