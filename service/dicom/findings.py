"""What the objects are made of: the findings of one series, and the model that made them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from contract.answer import Decision, Rules
from contract.region import RegionSource
from contract.version import StoredVersion

DISCLAIMER: Final = "Not for diagnostic use"
"""What every object says, in its series description and where a person reads it."""

_CLASS_WORDS: Final = {"notumor": "no tumor", "pituitary": "pituitary tumor"}


class Box(NamedTuple):
    """A rectangle in pixels of the stored matrix; right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True, slots=True, eq=False)
class SliceFinding:
    """What the model says of one frame.

    Attributes:
        sop_instance_uid: the image it belongs to.
        frame: frame number from 1; 1 in a single-frame image.
        label: its most probable class.
        probabilities: class to probability, 0 to 1.
        tumor_probability: 0 to 1.
        decision: of this slice alone.
        in_distribution: False for a slice unlike all that the model was trained on.
        mask: where the tumour is, bool (rows, columns) of the *stored* pixel matrix, if the model says.
        box: around it, likewise.
        pixels: uint8 grey levels as a viewer shows them, for the Secondary Capture; square pixels, so
            their size may differ from the stored matrix. The most suspicious slice needs them.
        digest: of the content of the image's file (:mod:`service.content`), in hex: a changed image
            under its old UID gives other objects.
    """

    sop_instance_uid: str
    frame: int
    label: str
    probabilities: Mapping[str, float]
    tumor_probability: float
    decision: Decision
    in_distribution: bool = True
    mask: NDArray[np.bool_] | None = None
    box: Box | None = None
    pixels: NDArray[np.uint8] | None = None
    digest: str = ""

    @property
    def suspicious(self) -> bool:
        """Whether somebody should look at it."""
        return self.decision is not Decision.NO_TUMOR


@dataclass(frozen=True, slots=True, eq=False)
class SeriesFindings:
    """What the model says of one series.

    Attributes:
        slices: at least one, in the order of the series.
        tumor_probability: of the series, 0 to 1.
        decision: of the series; not without a tumour while images failed or most cannot be judged.
        most_suspicious: index of the slice that the series' decision rests on.
        method: how the series' probability is formed from the slices', in a few words.
        failed: images of the series that could not be read or predicted.
    """

    slices: tuple[SliceFinding, ...]
    tumor_probability: float
    decision: Decision
    most_suspicious: int
    method: str
    failed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.most_suspicious < len(self.slices):
            raise ValueError("most_suspicious must be the index of a slice")

    @property
    def leading(self) -> SliceFinding:
        """The most suspicious slice."""
        return self.slices[self.most_suspicious]

    @property
    def unfamiliar(self) -> int:
        """Slices that are unlike all that the model was trained on."""
        return sum(not finding.in_distribution for finding in self.slices)

    @property
    def suspicious(self) -> list[SliceFinding]:
        """Slices that somebody should look at, the most suspicious first."""
        found = [finding for finding in self.slices if finding.suspicious]
        return sorted(found, key=lambda finding: -finding.tumor_probability)

    @classmethod
    def of_single(cls, finding: SliceFinding) -> "SeriesFindings":
        """A series of one slice, whose result is the slice's."""
        method = "that of the only slice"
        return cls((finding,), finding.tumor_probability, finding.decision, 0, method)


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """The version that made the findings.

    Attributes:
        name: e.g. ``brain-tumor``.
        version: its number.
        manifest_digest: sha256 of its manifest, in hex, which names it beyond doubt.
        operation: ``name=value`` of each number that decided; the manifest may say another.
    """

    name: str
    version: int
    manifest_digest: str
    operation: tuple[str, ...] = ()

    @classmethod
    def of(cls, stored: StoredVersion, rules: Rules) -> Self:
        """A version as it operates."""
        values: dict[str, float | None] = {"tumor_threshold": rules.tumor_threshold}
        if rules.temperature is not None:
            values["temperature"] = rules.temperature
        if rules.refer_band is not None:
            values["refer_low"], values["refer_high"] = rules.refer_band
        if rules.space is not None:
            values["ood_threshold"] = rules.ood_threshold
        if rules.region is not None and rules.region_source is RegionSource.MASK:
            values |= {f"region_{name}": value for name, value in rules.region}
        operation = tuple(f"{name}={value!r}" for name, value in values.items())
        manifest = stored.manifest
        return cls(manifest.name, manifest.version, stored.manifest_digest, operation)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The manifest's sha256 and the thresholds, each as ``name=value``."""
        return (f"manifest_sha256={self.manifest_digest}", *self.operation)

    @property
    def label(self) -> str:
        """Name and version."""
        return f"{self.name}/{self.version}"


def class_words(name: str) -> str:
    """A class of the model as a person reads it."""
    return _CLASS_WORDS.get(name, name)
