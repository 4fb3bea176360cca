"""Drift: what is answered beside what the version answered on validation, and a shadow version."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from contract.answer import Decision, Outputs, Rules
from contract.manifest import TumorEvidence
from contract.preprocessing import DEFAULT_SPEC, preprocess, probe_digest
from contract.store import ModelStore
from contract.version import StoredVersion
from service.answers import Answer
from service.drift import Drift
from service.jobs import Job
from service.metrics import Metrics
from service.schemas import ModelList
from service.schemas import Shadow as ShadowAnswer
from service.shadow import WAITING_SLICES, Shadow
from tests.service.test_batching import FAR, job
from tests.support.models import CLASSES, MAPS, NAME, QUANTISED, RECORDS, TWO_HEADS, head
from tests.support.pacs import pacs, pacs_settings, series, stow
from tests.support.service import (
    MODEL,
    FakeRuntime,
    FakeRuntimes,
    Service,
    add_version,
    serving,
    settings_for,
    wait_until,
)
from tests.support.slices import HEALTHY, STRANGE, TUMOR

REFERENCE = RECORDS["reference"]
THRESHOLD = RECORDS["answer"]["ood"]["threshold"]


@pytest.fixture
def watched(tiny_store: Path) -> Iterator[Service]:
    settings = settings_for(tiny_store, model=NAME, model_version=str(TWO_HEADS))
    with serving(settings) as running:
        yield running


class TestDrift:
    def test_slices_that_are_explained_are_not_counted_again(self, watched: Service) -> None:
        headers = {"Content-Type": "image/png"}
        answer = watched.client.post("/explain", content=TUMOR, headers=headers)
        assert answer.status_code == 200
        assert watched.metric("brain_predictions_total", label="glioma") == 0
        assert watched.metric("brain_confidence_count") == 0

    def test_answers_are_counted(self, watched: Service) -> None:
        watched.predict(TUMOR, TUMOR, HEALTHY, STRANGE, b"junk")
        metric = watched.metric
        assert metric("brain_predictions_total", label="glioma") >= 2
        assert sum(metric("brain_predictions_total", label=label) for label in CLASSES) == 4
        assert [
            metric("brain_decisions_total", decision=name)
            for name in ("tumor", "no_tumor", "refer")
        ] == [2, 1, 1]
        assert metric("brain_out_of_distribution_total") == 1
        assert metric("brain_confidence_count") == 4
        assert 4 * 0.25 < metric("brain_confidence_sum") <= 4
        assert metric("brain_embedding_distance_ratio_count") == 4
        assert metric("brain_embedding_distance_ratio_bucket", le="1.0") == 3

    def test_the_reference_stands_beside_them(self, watched: Service) -> None:
        metric = watched.metric
        for label in CLASSES:
            assert metric("brain_reference_class_share", label=label) == 0.25
        assert metric("brain_reference_confidence") == REFERENCE["mean_confidence"]
        assert (
            metric("brain_reference_out_of_distribution_share")
            == REFERENCE["out_of_distribution_rate"]
        )
        assert metric("brain_reference_embedding_distance_ratio") == pytest.approx(
            REFERENCE["embedding_distance_mean"] / THRESHOLD
        )
        assert metric("brain_reference_embedding_distance_ratio_deviation") == pytest.approx(
            REFERENCE["embedding_distance_std"] / THRESHOLD
        )

    def test_a_share_beyond_another_threshold_compares_with_nothing(self, tiny_store: Path) -> None:
        """Else the alert on it never ended, since no image is in distribution here."""
        version = {"model": NAME, "model_version": str(TWO_HEADS)}
        with serving(settings_for(tiny_store, **version, ood_threshold=1e-4)) as service:
            metric = service.metric
            service.predict(HEALTHY)
            assert metric("brain_out_of_distribution_total") == 1
            assert math.isnan(metric("brain_reference_out_of_distribution_share"))
            # The threshold changes nothing about these, or both sides.
            assert metric("brain_reference_confidence") == REFERENCE["mean_confidence"]
            assert metric("brain_reference_class_share", label="glioma") == 0.25
            assert metric("brain_reference_embedding_distance_ratio") == pytest.approx(
                REFERENCE["embedding_distance_mean"] / 1e-4
            )

    def test_a_confidence_at_another_temperature_compares_with_nothing(
        self, tiny_store: Path
    ) -> None:
        """Nor do the labels, for which the mask weighs more now."""
        version = {"model": NAME, "model_version": str(TWO_HEADS)}
        with serving(settings_for(tiny_store, **version, temperature=6.0)) as service:
            metric = service.metric
            assert math.isnan(metric("brain_reference_confidence"))
            assert "brain_reference_class_share{" not in service.client.get("/metrics").text
            assert (
                metric("brain_reference_out_of_distribution_share")
                == REFERENCE["out_of_distribution_rate"]
            )

    def test_a_setting_that_is_the_versions_own_changes_nothing(self, tiny_store: Path) -> None:
        version = {"model": NAME, "model_version": str(TWO_HEADS)}
        own = {"ood_threshold": THRESHOLD, "temperature": RECORDS["answer"]["temperature"]}
        with serving(settings_for(tiny_store, **version, **own)) as service:
            metric = service.metric
            assert (
                metric("brain_reference_out_of_distribution_share")
                == REFERENCE["out_of_distribution_rate"]
            )
            assert metric("brain_reference_confidence") == REFERENCE["mean_confidence"]
            assert metric("brain_reference_class_share", label="glioma") == 0.25

    def test_a_version_without_one_compares_with_nothing(self, watched: Service) -> None:
        response = watched.client.post(f"/models/{NAME}/{MAPS}/activate")
        assert response.status_code == 200
        metric = watched.metric
        assert math.isnan(metric("brain_reference_confidence"))
        assert math.isnan(metric("brain_reference_embedding_distance_ratio"))
        text = watched.client.get("/metrics").text
        assert "brain_reference_class_share{" not in text
        assert watched.predict(TUMOR).status_code == 200
        assert metric("brain_embedding_distance_ratio_count") == 0


class TestShadowVersion:
    def test_its_disagreement_is_measured(self, tiny_store: Path) -> None:
        """Version 3 knows no distribution, so it refers nothing."""
        settings = settings_for(
            tiny_store, model=NAME, model_version=str(TWO_HEADS), shadow_version=str(MAPS)
        )
        with serving(settings) as service:
            wait_until(lambda: "brain_shadow_info{" in service.client.get("/metrics").text)
            response = service.predict(TUMOR, HEALTHY, STRANGE, b"junk")
            assert response.json()["model"]["version"] == TWO_HEADS
            wait_until(lambda: service.metric("brain_shadow_images_total") == 3)
            assert service.metric("brain_shadow_disagreements_total", field="decision") == 1
            assert service.metric("brain_shadow_tumor_probability_difference_count") == 3
            assert service.metric("brain_shadow_dropped_images_total") == 0
            # What clients get is counted once, whoever else predicted it.
            assert service.metric("brain_confidence_count") == 3
            # What is shown again is counted by neither.
            image = {"files": ("again", TUMOR)}
            assert service.client.post("/explain", files=image).status_code == 200
            service.predict(TUMOR)
            wait_until(lambda: service.metric("brain_shadow_images_total") >= 4)
            # One more would be on its way by now.
            sleep(0.2)
            assert service.metric("brain_shadow_images_total") == 4
            assert service.metric("brain_confidence_count") == 4

    def test_what_a_pacs_sends_is_compared(self, store_copy: Path, tmp_path: Path) -> None:
        version = str(ModelStore(store_copy).versions(MODEL)[-1])
        shadow = str(add_version(store_copy))
        with pacs() as destination:
            settings = pacs_settings(
                store_copy, tmp_path, destination.url, model_version=version, shadow_version=shadow
            )
            with serving(settings, FakeRuntimes()) as service:
                wait_until(lambda: shadow_of(service).status == "running")
                assert stow(service.client, [it.data for it in series(3)]).status_code == 200
                wait_until(lambda: service.metric("brain_shadow_images_total") == 3)

    def test_the_same_model_agrees(self, tiny_store: Path) -> None:
        settings = settings_for(
            tiny_store, model=NAME, model_version=str(TWO_HEADS), shadow_version=str(QUANTISED)
        )
        with serving(settings) as service:
            wait_until(lambda: "brain_shadow_info{" in service.client.get("/metrics").text)
            service.predict(TUMOR, HEALTHY)
            wait_until(lambda: service.metric("brain_shadow_images_total") == 2)
            assert service.metric("brain_shadow_disagreements_total", field="label") == 0

    def test_one_that_cannot_serve_harms_nobody(
        self, store_copy: Path, jpeg: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        good = ModelStore(store_copy).versions(MODEL)[-1]
        broken = add_version(store_copy, schema_version=99)
        settings = settings_for(store_copy, model_version=str(good), shadow_version=str(broken))
        with caplog.at_level(logging.ERROR), serving(settings, FakeRuntimes()) as service:
            wait_until(lambda: "no shadow version runs" in caplog.text)
            assert service.predict(jpeg).status_code == 200
            assert service.metric("brain_shadow_images_total") == 0
            shadow = shadow_of(service)
            assert (shadow.status, shadow.version) == ("failed", None)
            assert shadow.error
            assert shadow.error.code == "newer_schema"

    def test_one_that_is_not_there_is_said_without_a_traceback(
        self, store_copy: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings = settings_for(store_copy, shadow_version="4711")
        with caplog.at_level(logging.ERROR), serving(settings, FakeRuntimes()) as service:
            wait_until(lambda: shadow_of(service).status == "failed")
            shadow = shadow_of(service)
            assert shadow.selector == "4711"
            assert shadow.error
            assert shadow.error.code == "version_not_found"
            assert service.client.get("/health").json()["status"] == "ready"
        (record,) = caplog.records
        assert record.getMessage() == "no shadow version runs"
        assert record.exc_info is None
        assert record.fields["reason"] == f"4711 names no version of {MODEL}"  # type: ignore[attr-defined]

    def test_one_that_runs_is_shown(self, store_copy: Path, runtimes: FakeRuntimes) -> None:
        number = ModelStore(store_copy).versions(MODEL)[-1]
        ModelStore(store_copy).set_alias(MODEL, "canary", number)
        add_version(store_copy)
        with serving(settings_for(store_copy, shadow_version="canary"), runtimes) as service:
            wait_until(lambda: shadow_of(service).status == "running")
            shadow = shadow_of(service)
            assert (shadow.selector, shadow.name, shadow.version) == ("canary", MODEL, number)
            assert shadow.error is None

    def test_one_that_compares_nothing_is_shown_as_such(
        self, store_copy: Path, jpeg: bytes, runtimes: FakeRuntimes
    ) -> None:
        """Until a version with its preprocessing serves; once its thread is gone, for good."""
        number = ModelStore(store_copy).versions(MODEL)[-1]
        alike = (
            ModelStore(store_copy).load(MODEL, number).manifest.preprocess.model_dump(mode="json")
        )
        spec = DEFAULT_SPEC.model_copy(update={"low_percentile": 3.0})
        record = {
            "parameters": spec.model_dump(mode="json"),
            "digest": spec.digest,
            "probe_digest": probe_digest(spec),
        }
        other = add_version(store_copy, preprocess=record)
        settings = settings_for(store_copy, model_version=str(other), shadow_version=str(number))
        with serving(settings, runtimes) as service:
            wait_until(lambda: shadow_of(service).status != "loading")
            shadow = shadow_of(service)
            assert (shadow.status, shadow.version) == ("paused", number)
            assert shadow.error
            assert shadow.error.code == "other_preprocessing"
            beside = runtimes.last
            third = add_version(store_copy, preprocess=alike)
            for serves, code in ((number, "same_version"), (third, None)):
                assert service.client.post(f"/models/{MODEL}/{serves}/activate").status_code == 200
                shadow = shadow_of(service)
                assert shadow.status == ("paused" if code else "running")
                assert (shadow.error and shadow.error.code) == code
            beside.error = SystemExit()
            assert service.predict(jpeg).status_code == 200
            wait_until(lambda: shadow_of(service).status == "failed")
            error = shadow_of(service).error
            assert error
            assert error.code == "runtime_unusable"

    def test_without_one_none_is_shown(self, watched: Service) -> None:
        assert watched.client.get("/models").json()["shadow"] is None

    def test_one_that_takes_long_is_shown_as_such(
        self, store_copy: Path, runtimes: FakeRuntimes
    ) -> None:
        number, beside = ModelStore(store_copy).versions(MODEL)[-1], add_version(store_copy)
        settings = settings_for(
            store_copy, model_version=str(number), shadow_version=str(beside), load_timeout_ms=500
        )
        runtimes.held = beside
        runtimes.gate.clear()
        with serving(settings, runtimes) as service:
            wait_until(runtimes.reached.is_set)
            assert shadow_of(service).status == "loading"
            wait_until(lambda: shadow_of(service).status == "failed")
            error = shadow_of(service).error
            assert error
            assert "within 0.5 s" in error.detail
            runtimes.gate.set()


def shadow_of(service: Service) -> ShadowAnswer:
    """What GET /models says of it."""
    shadow = ModelList.model_validate_json(service.client.get("/models").content).shadow
    assert shadow is not None
    return shadow


@dataclass
class Beside:
    """A shadow of its own, with a runtime to command, and how busy the active version is."""

    stored: StoredVersion
    active: StoredVersion = field(init=False)
    runtime: FakeRuntime = field(default_factory=lambda: FakeRuntime(max_batch_size=1))
    metrics: Metrics = field(default_factory=Metrics)
    idle: bool = True

    def __post_init__(self) -> None:
        manifest = self.stored.manifest
        self.active = replace(self.stored, manifest_digest="of another version")
        self.rules = Rules(manifest.classes, manifest.tumor_classes, manifest.tumor_threshold)
        self.shadow = Shadow(self.stored, self.rules, self.runtime, self.metrics, lambda: self.idle)

    def value(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(name) or 0.0

    def offer(self, count: int = 1, **changes: Any) -> None:
        self.shadow.offer([answered(**changes) for _ in range(count)], self.active, self.rules)


def answered(**changes: Any) -> Job:
    made = job(FAR)
    made.pixels = preprocess(head())
    made.outcome = Outputs(np.array([[0, 0, 1, 0]], np.float32))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.fixture
def beside(model_store: Path) -> Iterator[Beside]:
    store = ModelStore(model_store)
    made = Beside(store.load(MODEL, store.versions(MODEL)[-1]))
    yield made
    made.runtime.gate.set()
    made.shadow.close()


class TestShadow:
    def test_it_waits_until_the_active_version_has_nothing_to_do(self, beside: Beside) -> None:
        beside.idle = False
        beside.offer(3)
        assert not beside.runtime.entered.wait(0.1)
        beside.idle = True
        wait_until(lambda: beside.value("brain_shadow_images_total") == 3)
        assert beside.runtime.batches == [1, 1, 1]

    def test_what_it_has_no_time_for_is_dropped(self, beside: Beside) -> None:
        beside.idle = False
        beside.offer(WAITING_SLICES + 10)
        # One of them may be in its hands already.
        assert 9 <= beside.value("brain_shadow_dropped_images_total") <= 10

    def test_disagreement_is_counted(self, beside: Beside) -> None:
        beside.offer()
        wait_until(lambda: beside.value("brain_shadow_images_total") == 1)
        sample = beside.metrics.registry.get_sample_value
        assert sample("brain_shadow_disagreements_total", {"field": "label"}) == 1
        assert sample("brain_shadow_disagreements_total", {"field": "decision"}) == 1
        assert beside.value("brain_shadow_tumor_probability_difference_sum") == 1

    def test_labels_of_other_classes_are_not_compared(self, beside: Beside) -> None:
        """Of what another model calls by another name, every label would disagree."""
        rules = Rules(("krank", "gesund", "a", "b"), ("krank",), 0.5)
        beside.shadow.offer([answered()], beside.active, rules)
        wait_until(lambda: beside.value("brain_shadow_images_total") == 1)
        sample = beside.metrics.registry.get_sample_value
        assert sample("brain_shadow_disagreements_total", {"field": "label"}) == 0
        assert sample("brain_shadow_compared_labels_total") == 0
        assert sample("brain_shadow_disagreements_total", {"field": "decision"}) == 1
        assert beside.value("brain_shadow_tumor_probability_difference_sum") == 1
        # A share of none of them, and not 0 % of all: that is what a dashboard divides by.
        beside.offer()
        wait_until(lambda: beside.value("brain_shadow_images_total") == 2)
        assert sample("brain_shadow_compared_labels_total") == 1

    def test_slices_that_were_not_answered_are_left_out(self, beside: Beside) -> None:
        beside.offer(outcome=None)
        beside.offer(pixels=None)
        spec = DEFAULT_SPEC.model_copy(update={"low_percentile": 3.0})
        for active in (replace(beside.active, preprocess=spec), beside.stored):
            beside.shadow.offer([answered()], active, beside.rules)
        beside.offer()
        wait_until(lambda: beside.value("brain_shadow_images_total") == 1)
        assert beside.runtime.batches == [1]

    def test_a_failure_is_counted_and_not_the_end(self, beside: Beside) -> None:
        beside.runtime.error = ValueError("no")
        beside.offer()
        wait_until(lambda: beside.value("brain_shadow_failures_total") == 1)
        beside.runtime.error = None
        beside.offer()
        wait_until(lambda: beside.value("brain_shadow_images_total") == 1)

    def test_another_preprocessing_is_a_reason_to_compare_nothing(self, beside: Beside) -> None:
        assert beside.shadow.problem(None) is None
        assert beside.shadow.problem(beside.active) is None
        spec = DEFAULT_SPEC.model_copy(update={"low_percentile": 3.0})
        problem = beside.shadow.problem(replace(beside.active, preprocess=spec))
        assert problem is not None
        assert problem.code == "other_preprocessing"

    def test_the_version_that_serves_would_only_agree(self, beside: Beside) -> None:
        problem = beside.shadow.problem(beside.stored)
        assert problem is not None
        assert problem.code == "same_version"

    def test_a_thread_that_ended_is_a_failure(
        self, beside: Beside, caplog: pytest.LogCaptureFixture
    ) -> None:
        beside.runtime.error = SystemExit()
        beside.offer()
        wait_until(lambda: beside.shadow.problem(None) is not None)
        problem = beside.shadow.problem(beside.active)
        assert problem is not None
        assert problem.code == "runtime_unusable"
        assert "the thread of the shadow version ended" in caplog.text

    def test_closing_forgets_what_waits(self, beside: Beside) -> None:
        beside.idle = False
        beside.offer(5)
        beside.shadow.close()
        assert beside.runtime.closed
        assert beside.value("brain_shadow_images_total") <= 1


@pytest.mark.parametrize(("familiar", "count"), [(None, 0), (True, 0), (False, 1)])
def test_what_a_version_cannot_say_is_not_out_of_distribution(
    familiar: bool | None, count: int
) -> None:
    registry = CollectorRegistry()
    answer = Answer(
        "glioma", {"glioma": 1.0}, 1.0, Decision.TUMOR, None, familiar, None, False, None
    )
    Drift(registry).observe(answer, None)
    assert registry.get_sample_value("brain_out_of_distribution_total") == count


@pytest.mark.parametrize(("tumor", "shares"), [(None, 4), (RECORDS["answer"]["tumor"], 0)])
def test_without_a_mask_the_temperature_leaves_the_labels_comparable(
    tiny_store: Path, tumor: dict[str, Any] | None, shares: int
) -> None:
    manifest = ModelStore(tiny_store).load(NAME, TWO_HEADS).manifest
    assert manifest.answer is not None
    evidence = tumor and TumorEvidence.model_validate(tumor)
    record = manifest.answer.model_copy(update={"tumor": evidence})
    registry = CollectorRegistry()
    Drift(registry).refer_to(manifest.model_copy(update={"answer": record}), THRESHOLD, 6.0)
    values = [
        registry.get_sample_value("brain_reference_class_share", {"label": label})
        for label in CLASSES
    ]
    assert [value for value in values if value is not None] == [0.25] * shares
