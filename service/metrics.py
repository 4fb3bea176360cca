"""Prometheus metrics; every label has few values, and none comes from a client."""

import platform
from functools import partial
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder

from contract.answer import Decision
from contract.manifest import Manifest
from service.answers import Answer
from service.catalogue import CODES
from service.drift import Agreement, Drift
from service.errors import NotAcceptable
from service.negotiation import media_ranges
from service.release import RELEASE

LATENCY_BUCKETS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
"""Seconds: from a tenth of a quick answer to the default deadline."""

BATCH_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of one app, in a registry of their own.

    Attributes:
        requests: answers by route template and status.
        requests_in_progress: accepted and not yet answered.
        request_seconds: from the first byte of a request to the last of its answer.
        decode_seconds, queue_seconds: for each image.
        inference_seconds, batch_images: for each batch.
        predictions: answered images by label.
        decisions: answered images by decision.
        shadow_dropped, shadow_failures: images that the shadow version had no time for, or failed on.
        shadow_info: the shadow version.
        errors: refused requests and images by error code, each code from the start.
        runtime_restarts: runtimes rebuilt after their thread died or hung.
        workers, worker_restarts: processes that work on slices, now, and replaced since the start.
        activations: versions that were to take the place of the active one, by what came of it.
        queue_depth: images in the service now.
        tasks: of the event loop now; idle, always the same number.
        ready: 1 if predictions are answered.
        model: the active version.
        stow_instances: instances that came by STOW-RS, stored or by the reason of their refusal.
        series: series that were analysed, by what came of it.
        inbox_instances, inbox_oldest_seconds: waiting to be analysed now, and for how long.
        inbox_dead: series that cannot be analysed.
        outbox_objects, outbox_oldest_seconds: waiting to be delivered now, and for how long.
        outbox_dead: parked now, as the PACS refuses them or they cannot be read.
        outbox_delivered, outbox_failed: objects by modality.
        outbox_retries: requests that were sent again.
        spool_bytes, spool_max_bytes: on the disk now, and at most; 0 where there is no PACS.
        spool_waiting_bytes: of what is to be analysed or delivered; the others make room by themselves.
        spool_unreachable: 1 while its disk does not answer, when the others are the last known, or
            it does not take what is to be written.
        audit_failures, audit_lost: failed writes of the audit log, and lines that it lacks for good.
        audit_reopened: new files of it, as something else had moved or deleted the one before.
    """

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        seconds = partial(_seconds, registry)
        self.requests = counter(
            "brain_http_requests",
            "Answered requests.",
            ("route", "status"),
        )
        self.requests_in_progress = gauge(
            "brain_http_requests_in_progress", "Requests being answered."
        )
        self.request_seconds = seconds(
            "brain_http_request",
            "Time of a request, with its upload and all slices of its series.",
            "route",
        )
        self.decode_seconds = seconds("brain_decode", "Time to decode and preprocess an image.")
        self.queue_seconds = seconds("brain_queue", "Time an image waits for threads.")
        self.inference_seconds = seconds("brain_inference", "Time to predict a batch.")
        self.batch_images = Histogram(
            "brain_batch_images", "Images in a batch.", buckets=BATCH_BUCKETS, registry=registry
        )
        self.predictions = counter("brain_predictions", "Predicted images.", ("label",))
        self.decisions = counter("brain_decisions", "Predicted images.", ("decision",))
        self._drift = Drift(registry)
        self.shadow_dropped = counter(
            "brain_shadow_dropped_images", "Images that the shadow version had no time for."
        )
        self.shadow_failures = counter(
            "brain_shadow_failures", "Images that the shadow version failed on."
        )
        self.shadow_info = Info("brain_shadow", "The shadow version.", registry=registry)
        self._shadow = Agreement(registry)
        self.errors = counter("brain_errors", "Refused requests and images.", ("code",))
        for code in CODES:
            # One that came with its first error would not have increased by it, for any alert.
            self.errors.labels(code)
        self.runtime_restarts = counter("brain_runtime_restarts", "Runtimes rebuilt after a fault.")
        self.workers = gauge("brain_workers", "Processes that work on slices.")
        self.worker_restarts = counter(
            "brain_worker_restarts", "Such processes that ended and were replaced."
        )
        self.activations = counter(
            "brain_activations", "Versions that were to take over.", ("outcome",)
        )
        for outcome in ("activated", "refused"):
            self.activations.labels(outcome)
        self.queue_depth = gauge("brain_queue_depth_images", "Images waiting or being predicted.")
        self.tasks = gauge("brain_event_loop_tasks", "Tasks of the event loop.")
        self.ready = gauge("brain_ready", "1 if predictions are answered.")
        self.model = Info("brain_model", "The active model version.", registry=registry)
        self.stow_instances = counter("brain_stow_instances", "Instances by STOW-RS.", ("outcome",))
        self.series = counter("brain_series", "Analysed series.", ("outcome",))
        self.inbox_instances = gauge("brain_inbox_instances", "Instances waiting to be analysed.")
        self.inbox_oldest_seconds = gauge(
            "brain_inbox_oldest_age_seconds", "Time that the series that waits longest has waited."
        )
        self.inbox_dead = gauge("brain_inbox_dead_series", "Series that cannot be analysed.")
        self.outbox_objects = gauge("brain_outbox_objects", "Results waiting for the PACS.")
        self.outbox_oldest_seconds = gauge(
            "brain_outbox_oldest_age_seconds", "Age of the oldest of them."
        )
        self.outbox_dead = gauge("brain_outbox_dead_objects", "Results that were given up.")
        self.outbox_delivered = counter("brain_outbox_delivered", "Results delivered.", ("kind",))
        self.outbox_failed = counter("brain_outbox_failed", "Results given up.", ("kind",))
        self.outbox_retries = counter("brain_outbox_retries", "Deliveries tried again.")
        self.spool_bytes = gauge("brain_spool_bytes", "Bytes of the spool.")
        self.spool_waiting_bytes = gauge(
            "brain_spool_waiting_bytes", "Bytes of what waits for analysis or the PACS."
        )
        self.spool_max_bytes = gauge("brain_spool_max_bytes", "Bytes that it may have.")
        self.spool_unreachable = gauge(
            "brain_spool_unreachable",
            "1 while its disk does not say what there is, or takes nothing.",
        )
        self.audit_failures = counter("brain_audit_failures", "Failed writes of the audit log.")
        self.audit_lost = counter("brain_audit_lost_lines", "Lines that the audit log lacks.")
        self.audit_reopened = counter(
            "brain_audit_reopened",
            "New files of the audit log, as the one before was moved or deleted.",
        )
        build = Info("brain_build", "The running release.", registry=registry)
        build.info({"version": RELEASE, "python": platform.python_version()})
        ProcessCollector(registry=registry)

    def observe_batch(self, images: int, seconds: float) -> None:
        """Counts one predicted batch."""
        self.batch_images.observe(images)
        self.inference_seconds.observe(seconds)

    def observe_answer(self, answer: Answer, ood_threshold: float | None) -> None:
        """Counts one answered slice.

        Args:
            answer: to it.
            ood_threshold: largest distance that is in distribution.
        """
        self.predictions.labels(answer.label).inc()
        self.decisions.labels(answer.decision).inc()
        self._drift.observe(answer, ood_threshold)

    def observe_shadow(self, active: Answer, shadow: Answer) -> None:
        """Counts one slice that the shadow version has predicted as well."""
        self._shadow.observe(active, shadow)

    def refer_to(
        self, manifest: Manifest, ood_threshold: float | None, temperature: float | None
    ) -> None:
        """Shows what the active version answered on validation, and its classes from the start.

        Args:
            manifest: of the version.
            ood_threshold: in force, which a setting may have changed.
            temperature: likewise.
        """
        for label in manifest.classes:
            self.predictions.labels(label)
        for decision in Decision:
            self.decisions.labels(decision)
        self._drift.refer_to(manifest, ood_threshold, temperature)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition that an ``Accept`` header asks for, and its media type.

        What it asks for and cannot be understood gets the default one.
        """
        try:
            encoder, media_type = choose_encoder(_wanted(accept))
        except (NotAcceptable, TypeError, ValueError):
            # It is malformed, or of a version that is no number.
            encoder, media_type = choose_encoder("")
        return encoder(self.registry), media_type


def _wanted(accept: str) -> str:
    """A header's ranges but those that it refuses, or wants less than plain text.

    The client library does not look at their qualities.
    """
    ranges = list(media_ranges(accept))
    plain = [item.quality for item in ranges if (item.main, item.sub) == ("text", "plain")]
    return ",".join(
        ";".join([f"{item.main}/{item.sub}", *map("=".join, item.parameters.items())])
        for item in ranges
        if item.quality > 0 and item.quality >= max(plain, default=0)
    )


def _seconds(registry: CollectorRegistry, name: str, text: str, *labels: str) -> Histogram:
    return Histogram(
        f"{name}_duration_seconds", text, labels, buckets=LATENCY_BUCKETS, registry=registry
    )
