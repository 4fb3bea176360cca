"""What a model gives, to what the service answers: the one function that training evaluates with.

Every step but the last is left out where the version has no record of it:

1. calibrated class probabilities: softmax of the logits over a temperature;
2. tumour evidence: class head and mask together say how probable any tumour is, and the classes share
   that out among themselves;
3. prediction set: the classes that are probable enough, for a stated coverage;
4. distance of the embedding from the training data, or how turned the slice looks, if that is more; a
   picture in colour is far from them, whatever its brightness looks like;
5. decision: ``refer`` if the slice is unlike the training data or its tumour probability lies in the
   band that is referred, else by the threshold.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from contract.errors import CorruptVersion
from contract.manifest import AnswerRecord, RegionRecord, TumorEvidence
from contract.region import MAP_SHARE, RegionSource
from contract.space import EmbeddingSpace
from contract.version import StoredVersion

DECIMALS: Final = 6
"""Probabilities are rounded to this many before anything is decided on them, so that a client can
retrace every decision from the numbers that it sees; float32 holds no more."""

MASK_CLIP: Final = 1e-4
"""The mean of the highest mask cells is kept this far from 0 and 1, where its logit has no bound."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a model gives for ``n`` slices; what it lacks is None.

    Attributes:
        probabilities: float32 (n, classes).
        logits: float32 (n, classes), before any temperature.
        mask: float32 (n, h, w), tumour probability of cells that cover the model's input evenly.
        embedding: float32 (n, d), pooled features of the backbone.
        cam: float32 (n, h, w, classes), class activation maps.
    """

    probabilities: NDArray[np.float32]
    logits: NDArray[np.float32] | None = None
    mask: NDArray[np.float32] | None = None
    embedding: NDArray[np.float32] | None = None
    cam: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """What there is, by the name of the output."""
        named = {
            "probabilities": self.probabilities,
            "logits": self.logits,
            "mask": self.mask,
            "embedding": self.embedding,
            "cam": self.cam,
        }
        return {name: array for name, array in named.items() if array is not None}

    def at(self, index: int) -> "Outputs":
        """The outputs of one slice, ``n`` being 1; views of these."""
        rows = slice(index, index + 1)
        return Outputs(
            self.probabilities[rows],
            None if self.logits is None else self.logits[rows],
            None if self.mask is None else self.mask[rows],
            None if self.embedding is None else self.embedding[rows],
            None if self.cam is None else self.cam[rows],
        )


class Decision(StrEnum):
    """What a slice is taken for."""

    TUMOR = "tumor"
    NO_TUMOR = "no_tumor"
    REFER = "refer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What is answered for ``n`` slices; what the version has no record of is None.

    Attributes:
        probabilities: float64 (n, classes), rounded to :data:`DECIMALS`.
        tumor_probability: float64 (n,), likewise.
        decisions: one for each slice.
        labels: index of each slice's most probable class, (n,); of equally probable ones, the first
            that says what the decision does.
        prediction_set: bool (n, classes); each row has the label's class at least, and all
            classes where the slice is not in distribution.
        distance: float64 (n,), from the training data.
        in_distribution: bool (n,).
    """

    probabilities: NDArray[np.float64]
    tumor_probability: NDArray[np.float64]
    decisions: tuple[Decision, ...]
    labels: NDArray[np.intp]
    prediction_set: NDArray[np.bool_] | None = None
    distance: NDArray[np.float64] | None = None
    in_distribution: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """How the outputs of a version become answers.

    Attributes:
        classes: labels in the order of the outputs.
        tumor_classes: those of them that mean a tumour.
        tumor_threshold: tumour probability from which the decision is ``tumor``.
        temperature: logits are divided by it; None takes the model's own probabilities.
        tumor: how much mask and class head weigh.
        set_threshold: probability from which a class is in the prediction set.
        refer_band: tumour probabilities that are referred, the second exclusive.
        region: when a region is reported.
        region_source: what it is made of.
        space, ood_threshold: where training data lie, and how far from there a slice may.
    """

    classes: tuple[str, ...]
    tumor_classes: tuple[str, ...]
    tumor_threshold: float
    temperature: float | None = None
    tumor: TumorEvidence | None = None
    set_threshold: float | None = None
    refer_band: tuple[float, float] | None = None
    region: RegionRecord | None = None
    region_source: RegionSource = RegionSource.MASK
    space: EmbeddingSpace | None = None
    ood_threshold: float | None = None

    @classmethod
    def read(cls, stored: StoredVersion) -> Self:
        """The rules of a version.

        Raises:
            CorruptVersion: its file of training embeddings is of no use.
        """
        manifest, record = stored.manifest, stored.manifest.answer
        rules = cls(manifest.classes, manifest.tumor_classes, manifest.tumor_threshold)
        if record is not None:
            ood = stored.files[record.ood.file].path if record.ood else None
            rules = cls.of(rules.classes, rules.tumor_classes, rules.tumor_threshold, record, ood)
        if "cam" in manifest.outputs and "mask" not in manifest.outputs:
            region = RegionRecord(
                threshold=MAP_SHARE, min_cells=1, min_tumor_probability=manifest.tumor_threshold
            )
            rules = replace(rules, region=region, region_source=RegionSource.CAM)
        space = rules.space
        if space and manifest.outputs["embedding"].shape != (None, space.features):
            raise CorruptVersion("the training embeddings are not of this model")
        return rules

    @classmethod
    def of(
        cls,
        classes: tuple[str, ...],
        tumor_classes: tuple[str, ...],
        tumor_threshold: float,
        record: AnswerRecord,
        ood: Path | None,
    ) -> Self:
        """The rules that a record states.

        Args:
            classes: labels in the order of the outputs.
            tumor_classes: those of them that mean a tumour.
            tumor_threshold: tumour probability from which the decision is ``tumor``.
            record: the rest of it.
            ood: the record's file of training embeddings, if it names one.

        Raises:
            CorruptVersion: that file is of no use.
        """
        point, conformal = record.operating_point, record.conformal
        return cls(
            classes,
            tumor_classes,
            tumor_threshold,
            temperature=record.temperature,
            tumor=record.tumor,
            set_threshold=conformal.threshold if conformal else None,
            refer_band=(point.refer_low, point.refer_high) if point else None,
            region=record.region,
            space=EmbeddingSpace.read(ood) if ood else None,
            ood_threshold=record.ood.threshold if record.ood else None,
        )

    def answer(self, outputs: Outputs, coloured: NDArray[np.bool_] | None = None) -> Answers:
        """Answers for a batch of slices.

        Args:
            outputs: for ``n`` slices.
            coloured: bool (n,), those of pictures in colour, which no slice of training has for more
                than a caption; None if there are none.

        Raises:
            ValueError: the outputs lack something that the rules need.
        """
        is_tumor = np.array([name in self.tumor_classes for name in self.classes])
        exact = self._probabilities(outputs, is_tumor)
        probabilities = np.round(exact, DECIMALS)
        # Int8 probabilities add up to 1 only roughly.
        total = np.minimum(probabilities[:, is_tumor].sum(axis=1), 1.0)
        tumor_probability = np.round(total, DECIMALS)
        distance = familiar = chosen = None
        if self.space is not None and self.ood_threshold is not None:
            distance = self.space.distance(_there(outputs.embedding, "embedding"))
            familiar = distance <= self.ood_threshold
        if coloured is not None:
            familiar = ~coloured if familiar is None else familiar & ~coloured
        decisions = self._decisions(tumor_probability, familiar)
        labels = _labels(probabilities, is_tumor, decisions)
        if self.set_threshold is not None:
            chosen = probabilities >= self.set_threshold
            chosen[np.arange(len(chosen)), labels] = True
            if familiar is not None:
                # The coverage was measured on slices like those of training; elsewhere any may be true.
                chosen[~familiar] = True
        return Answers(
            probabilities=probabilities,
            tumor_probability=tumor_probability,
            decisions=decisions,
            labels=labels,
            prediction_set=chosen,
            distance=distance,
            in_distribution=familiar,
        )

    def cells(self, outputs: Outputs) -> NDArray[np.float32] | None:
        """What speaks for a tumour where: float32 (h, w), 0 to 1; None where the outputs show nothing.

        Regions are found in it.

        Args:
            outputs: of one slice.
        """
        if self.region_source is RegionSource.MASK:
            return None if outputs.mask is None else outputs.mask[0]
        if outputs.cam is None:
            return None
        is_tumor = np.isin(self.classes, self.tumor_classes)
        likeliest = int(np.where(is_tumor, outputs.probabilities[0], -1).argmax())
        return relative(outputs.cam[0, :, :, likeliest])

    def decide(self, tumor_probability: float, *, familiar: bool = True) -> Decision:
        """The decision on a slice or a series.

        Args:
            tumor_probability: of it, rounded.
            familiar: False if it is unlike the training data.
        """
        low, high = self.refer_band or (1.0, 0.0)
        if low <= tumor_probability < high or not familiar:
            return Decision.REFER
        return Decision.TUMOR if tumor_probability >= self.tumor_threshold else Decision.NO_TUMOR

    def _probabilities(self, outputs: Outputs, is_tumor: NDArray[np.bool_]) -> NDArray[np.float64]:
        if self.temperature is None:
            return outputs.probabilities.astype(np.float64)
        logits = _there(outputs.logits, "logits").astype(np.float64) / self.temperature
        if self.tumor is None:
            return _softmax(logits)
        evidence = self.tumor
        by_class = np.logaddexp.reduce(logits[:, is_tumor], axis=1)
        by_class -= np.logaddexp.reduce(logits[:, ~is_tumor], axis=1)
        by_mask = mask_logit(_there(outputs.mask, "mask"), evidence.mask_cells)
        odds = evidence.bias + evidence.class_weight * by_class + evidence.mask_weight * by_mask
        share = (1 / (1 + np.exp(-np.clip(odds, -700, 700))))[:, None]
        probabilities = np.empty_like(logits)
        probabilities[:, is_tumor] = _softmax(logits[:, is_tumor]) * share
        probabilities[:, ~is_tumor] = _softmax(logits[:, ~is_tumor]) * (1 - share)
        return probabilities

    def _decisions(
        self, tumor_probability: NDArray[np.float64], familiar: NDArray[np.bool_] | None
    ) -> tuple[Decision, ...]:
        return tuple(
            self.decide(probability, familiar=familiar is None or bool(familiar[index]))
            for index, probability in enumerate(tumor_probability.tolist())
        )


def relative(activations: NDArray[np.float32]) -> NDArray[np.float32]:
    """What speaks for a class in each cell, as a share of what speaks for it most: 0 to 1."""
    positive = np.maximum(activations, 0)
    highest = float(positive.max()) or 1.0
    return np.asarray(positive / highest, np.float32)


def mask_logit(mask: NDArray[np.float32], cells: int) -> NDArray[np.float64]:
    """Logit of the mean of the highest cells: float32 (n, h, w) to float64 (n,)."""
    flat = mask.reshape(len(mask), -1)
    # Of values that are mostly equal, as an int8 mask's are, a sort is far quicker than a selection.
    highest = np.sort(flat, axis=1)[:, -cells:]
    mean = np.clip(highest.mean(axis=1, dtype=np.float64), MASK_CLIP, 1 - MASK_CLIP)
    return np.asarray(np.log(mean) - np.log1p(-mean))


def _labels(
    probabilities: NDArray[np.float64],
    is_tumor: NDArray[np.bool_],
    decisions: tuple[Decision, ...],
) -> NDArray[np.intp]:
    """The labels of :class:`Answers`.

    Two classes at 0.5 each are a tumour from a threshold of 0.5 on, and the label must not deny it.
    """
    labels = np.asarray(probabilities.argmax(axis=1))
    tied = probabilities == probabilities.max(axis=1, keepdims=True)
    for row in np.flatnonzero(tied.sum(axis=1) > 1):
        if decisions[row] is not Decision.REFER:
            fitting = tied[row] & (is_tumor == (decisions[row] is Decision.TUMOR))
            labels[row] = fitting.argmax() if fitting.any() else labels[row]
    return labels


def _there(output: NDArray[np.float32] | None, name: str) -> NDArray[np.float32]:
    if output is None:
        raise ValueError(f"the model gave no {name}")
    return output


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
