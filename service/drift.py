"""Whether what comes in is still what the version was made for, and how a shadow version differs.

The counts since the start stand beside gauges of what the version answered on validation
(``brain_reference_…``), so that alert rules compare the two. Gauges of a version that does not say are
NaN, which compares with nothing. So is one that a setting makes incomparable: what is counted follows
the settings, what was measured on validation the version's own values.
"""

import math
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from contract.manifest import Manifest
from service.answers import Answer

CONFIDENCE_BUCKETS: Final = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Probabilities of the label; of four classes it is never below 0.25."""

DISTANCE_BUCKETS: Final = (0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 2.0, 4.0)
"""Distances as a share of the largest that is in distribution, so that versions can be compared."""

DIFFERENCE_BUCKETS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Of two tumour probabilities."""


class Drift:
    """Answers since the start, and what they looked like on validation."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._confidence = Histogram(
            "brain_confidence",
            "Probability of the label.",
            buckets=CONFIDENCE_BUCKETS,
            registry=registry,
        )
        self._unfamiliar = Counter(
            "brain_out_of_distribution", "Images unlike the training data.", registry=registry
        )
        self._distance = Histogram(
            "brain_embedding_distance_ratio",
            "Distance from the training data over the largest that is in distribution.",
            buckets=DISTANCE_BUCKETS,
            registry=registry,
        )
        self._class_share = Gauge(
            "brain_reference_class_share",
            "Share of a label on validation.",
            ("label",),
            registry=registry,
        )
        self._gauges = {
            name: Gauge(f"brain_reference_{name}", text, registry=registry)
            for name, text in {
                "confidence": "Mean probability of the label on validation.",
                "out_of_distribution_share": "Share of images out of distribution on validation.",
                "embedding_distance_ratio": "Mean of brain_embedding_distance_ratio on validation.",
                "embedding_distance_ratio_deviation": "Its standard deviation on validation.",
            }.items()
        }
        for gauge in self._gauges.values():
            gauge.set(math.nan)

    def observe(self, answer: Answer, ood_threshold: float | None) -> None:
        """Counts one answer; see :meth:`service.metrics.Metrics.observe_answer`."""
        self._confidence.observe(answer.probabilities[answer.label])
        if answer.in_distribution is False:
            self._unfamiliar.inc()
        if answer.distance is not None and ood_threshold is not None:
            self._distance.observe(answer.distance / ood_threshold)

    def refer_to(
        self, manifest: Manifest, ood_threshold: float | None, temperature: float | None
    ) -> None:
        """Shows what the active version answered on validation; NaN where it does not say.

        The share out of distribution is NaN under another threshold than the version's as well, and
        the confidence under another temperature. A distance is comparable under any threshold: both
        sides are divided by the one in force.

        Args:
            manifest: of the version.
            ood_threshold: in force, which a setting may have changed.
            temperature: likewise.
        """
        reference, record = manifest.reference, manifest.answer
        same_threshold = (
            record is None or record.ood is None or ood_threshold == record.ood.threshold
        )
        same_temperature = record is None or temperature == record.temperature
        # Among the classes of one softmax the most probable one stays so at any temperature. Where a
        # mask weighs as well, whose evidence the temperature does not divide, another may come first.
        same_labels = same_temperature or record is None or record.tumor is None
        self._class_share.clear()
        values: dict[str, float | None] = {}
        if reference is not None:
            for label, share in reference.class_shares.items() if same_labels else ():
                self._class_share.labels(label).set(share)
            values = {
                "confidence": reference.mean_confidence if same_temperature else None,
                "out_of_distribution_share": (
                    reference.out_of_distribution_rate if same_threshold else None
                ),
                "embedding_distance_ratio": _over(reference.embedding_distance_mean, ood_threshold),
                "embedding_distance_ratio_deviation": _over(
                    reference.embedding_distance_std, ood_threshold
                ),
            }
        for name, gauge in self._gauges.items():
            value = values.get(name)
            gauge.set(math.nan if value is None else value)


class Agreement:
    """How the answers of a shadow version differ from the active one's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._images = Counter(
            "brain_shadow_images",
            "Images that the shadow version has predicted as well.",
            registry=registry,
        )
        self._disagreements = Counter(
            "brain_shadow_disagreements",
            "Images on which the shadow version says something else.",
            ("field",),
            registry=registry,
        )
        self._compared_labels = Counter(
            "brain_shadow_compared_labels",
            "Images of which both versions' labels are among the same classes.",
            registry=registry,
        )
        for field in ("label", "decision"):
            self._disagreements.labels(field)
        self._difference = Histogram(
            "brain_shadow_tumor_probability_difference",
            "Difference between the two versions' tumour probabilities.",
            buckets=DIFFERENCE_BUCKETS,
            registry=registry,
        )

    def observe(self, active: Answer, shadow: Answer) -> None:
        """Counts one slice; not its labels, where the versions do not know the same classes."""
        self._images.inc()
        self._difference.observe(abs(active.tumor_probability - shadow.tumor_probability))
        if active.probabilities.keys() == shadow.probabilities.keys():
            self._compared_labels.inc()
            if active.label != shadow.label:
                self._disagreements.labels("label").inc()
        if active.decision != shadow.decision:
            self._disagreements.labels("decision").inc()


def _over(value: float | None, threshold: float | None) -> float | None:
    return None if value is None or threshold is None else value / threshold
