"""What holds of the Grafana dashboard without a service: its form, its alerts, how it is brought in."""

import re
from itertools import combinations
from typing import Any

import pytest
import yaml

from tests.support.dashboard import (
    DURATION,
    Json,
    bare,
    dashboard,
    expressions,
    panels,
    selectors,
)
from tests.support.service import ROOT

GRAFANA = ROOT / "deploy" / "grafana"
PROMETHEUS = ROOT / "deploy" / "prometheus"

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

ENOUGH_IMAGES = r"\band on \(instance\) [^>]*>= 200"
"""What keeps alerts quiet while few images come; a panel shows its values before."""


def test_it_can_be_imported_and_provisioned_anywhere() -> None:
    content = dashboard()
    assert content["uid"] == "brain-mri"
    # Both are of one Grafana, and a provisioned dashboard's inputs are not filled in.
    assert not content.keys() & {"id", "__inputs"}
    # Of Grafana 10.0; later ones bring an older dashboard up to date.
    assert content["schemaVersion"] == 38
    first, *others = content["templating"]["list"]
    assert first["name"] == first["type"] == "datasource"
    assert first["query"] == DATASOURCE["type"]
    assert all(variable["datasource"] == DATASOURCE for variable in others)
    assert [variable["name"] for variable in others] == ["job", "instance"]


def test_panels_have_numbers_places_and_targets_of_their_own() -> None:
    everything = dashboard()["panels"]
    numbers = [panel["id"] for panel in everything]
    assert len(set(numbers)) == len(numbers)
    titles = [panel["title"] for panel in everything]
    assert len(set(titles)) == len(titles)
    for panel in everything:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
    for one, other in combinations(everything, 2):
        assert not overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])
    for panel in panels():
        assert panel["datasource"] == DATASOURCE
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == sorted(set(letters))
        assert all(target["datasource"] == DATASOURCE for target in panel["targets"])


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    """Whether two places of the grid have a cell in common."""
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )


def test_rows_come_in_the_order_of_an_operators_questions() -> None:
    everything = sorted(dashboard()["panels"], key=lambda panel: panel["gridPos"]["y"])
    assert everything[0]["type"] == "row"
    assert [panel["id"] for panel in everything] == [panel["id"] for panel in dashboard()["panels"]]
    words = ["ready", "version", "refusals", "long", "Queue", "limits", "Decoders", "PACS", "made"]
    rows = [panel["title"] for panel in everything if panel["type"] == "row"]
    assert all(word in row for word, row in zip([*words, "Process"], rows, strict=True))


def test_every_panel_says_in_a_sentence_what_to_do() -> None:
    for panel in panels():
        assert re.fullmatch(r"(When|Each) [^.]+(\.md[^.]+)?\.", panel["description"]), panel[
            "title"
        ]
        if panel["type"] != "table":
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert all(target["legendFormat"] for target in panel["targets"])


def test_every_expression_asks_for_the_chosen_job_and_instances() -> None:
    for panel in panels():
        for expression in expressions(panel):
            texts_apart = re.sub(r'"[^"]*"', "", expression)
            without_braces = re.findall(r"\b(?:brain|process)[\w:]+(?![\w:]|\s*\{)", texts_apart)
            assert without_braces == []
            for metric, matchers in selectors(expression):
                wanted = {("instance", "=~", "$instance"), ("job", "=", "$job")}
                # Of an alert that sums by instance no job is left.
                wanted -= {("job", "=", "$job")} if metric == "ALERTS" else set()
                assert wanted <= set(matchers), expression


def alert_expressions() -> dict[str, str]:
    """Each alert's, in which recorded ones are written out."""
    content = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text("utf-8"))
    rules: list[dict[str, Any]] = [rule for group in content["groups"] for rule in group["rules"]]
    recorded = {rule["record"]: f"({rule['expr']})" for rule in rules if "record" in rule}
    alerts = {}
    for rule in rules:
        if "alert" in rule:
            text = re.sub(ENOUGH_IMAGES, "", rule["expr"])
            # Recorded ones are made of recorded ones.
            while re.search(r"\bbrain:", text):
                text = re.sub(r"\bbrain:[\w:]+", lambda match: recorded[match[0]], text)
            alerts[rule["alert"]] = text
    return alerts


ALERTS = alert_expressions()


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_panel_that_shows_the_same(alert: str) -> None:
    (panel,) = [panel for panel in panels() if re.search(rf"\b{alert}\b", panel["description"])]
    shown = " ".join(expressions(panel))
    asked = ALERTS[alert]
    assert plain_selectors(asked) <= plain_selectors(shown)
    assert set(re.findall(DURATION, asked)) <= set(re.findall(DURATION, shown))
    red = red_from(panel)
    if red:
        # A whole number is passed by the next one.
        whole = {number + 1 for number in numbers(asked) if number.is_integer()}
        assert red <= numbers(asked) | whole
    else:
        # What it is compared with is drawn, or it is whether there is any.
        assert numbers(asked) <= numbers(shown) | {0.0}


def numbers(expression: str) -> set[float]:
    """All that an expression counts or compares with."""
    return {float(number) for number in re.findall(r"(?<![\w.])\d[\d.]*", bare(expression))}


def plain_selectors(expression: str) -> set[tuple[str, frozenset[tuple[str, str, str]]]]:
    """Metrics with their matchers, but for the job and the instance."""
    with_braces = re.sub(r"\b((?:brain|process)_\w+)(?!\w)(?!\{)", r"\1{}", expression)
    return {
        (
            metric,
            frozenset(matcher for matcher in matchers if matcher[0] not in {"job", "instance"}),
        )
        for metric, matchers in selectors(with_braces)
    }


def red_from(panel: Json) -> set[float]:
    """Values from which on a panel is red; one that is red below a value has none."""
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    return {step["value"] for step in steps[1:] if step["color"] == "red"}


def test_every_alert_that_a_panel_names_is_there() -> None:
    named = {
        name
        for panel in panels()
        for names in re.findall(r"\(alerts? ([^)]+)\)", panel["description"])
        for name in names.split(" and ")
    }
    assert named == ALERTS.keys()


def test_grafana_knows_the_prometheus_of_the_stack() -> None:
    (source,) = provisioned("datasources/prometheus.yml")["datasources"]
    stack = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    assert stack["prometheus"]["ports"][0].endswith(":9090")
    scraping = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))["global"]
    assert source["jsonData"]["timeInterval"] == scraping["scrape_interval"]


def provisioned(name: str) -> Json:
    """A file of provisioning."""
    content: Json = yaml.safe_load((GRAFANA / "provisioning" / name).read_text("utf-8"))
    assert content["apiVersion"] == 1
    return content


def test_grafana_looks_for_dashboards_where_the_documents_copy_them() -> None:
    (provider,) = provisioned("dashboards/brain-mri.yml")["providers"]
    path = provider["options"]["path"]
    documents = (ROOT / "docs" / "operations.md").read_text("utf-8")
    assert f"`deploy/grafana/dashboards` to\n  `{path}`" in documents
