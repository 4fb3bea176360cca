"""What a published model version says of itself: ``manifest.json``."""

import math
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, model_validator

SCHEMA_VERSION: Final = 2
"""Raised when a manifest can no longer be read by the release before. A manifest without ``answer`` and
``reference`` is still of schema 1."""

RuntimeName = Literal["litert", "tensorflow"]
"""The runtimes that a version can hold an artifact for."""

MODEL_NAME_PATTERN: Final = r"[a-z0-9][a-z0-9._-]{0,63}"
"""A model's name, which is a folder's name in the store."""

VERSION_PATTERN: Final = r"[1-9][0-9]{0,8}"
"""A version's number, likewise; the store looks at no other folders."""

ALIAS_PATTERN: Final = r"[a-z][a-z0-9_-]{0,31}"
"""A word that may stand for a version's number; ``latest`` stands for the highest."""

MAX_VERSION: Final = 999_999_999

_JOINERS: Final = "\u200c\u200d"
"""Zero width (non-)joiners, which spell words of Persian and Devanagari, and are no printable signs."""


def _inside_version(path: str) -> str:
    pure = PurePosixPath(path)
    if not pure.parts or pure.is_absolute() or ".." in pure.parts or "\\" in path:
        raise ValueError("must be a relative path inside the version")
    if path != pure.as_posix():
        raise ValueError("must be written in its shortest form")
    return path


def _printable(name: str) -> str:
    for sign in name:
        if not sign.isprintable() and sign not in _JOINERS:
            raise ValueError(f"must be printable, which U+{ord(sign):04X} is not")
    if name != name.strip(f" {_JOINERS}"):
        raise ValueError("must have no space or joiner at its ends")
    return name


VersionPath = Annotated[str, AfterValidator(_inside_version)]
ModelName = Annotated[str, Field(pattern=f"^{MODEL_NAME_PATTERN}$")]
ClassName = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
OUTPUT_AXES: Final[dict[str, tuple[str, ...]]] = {
    "probabilities": ("classes",),
    "logits": ("classes",),
    "mask": ("h", "w"),
    "embedding": ("d",),
    "cam": ("h", "w", "classes"),
}
"""Outputs that mean something here, with their axes after the batch axis: probabilities; logits before
any temperature; the tumour probability of cells that cover the model's input evenly; pooled features of
the backbone; class activation maps of such cells."""

Share = Annotated[FiniteFloat, Field(ge=0, le=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Frozen):
    """One file of the version, by its path from the version's folder."""

    path: VersionPath
    sha256: Sha256
    size_bytes: int = Field(ge=0)


class TensorSpec(_Frozen):
    """Shape and type of a tensor; None is the batch axis."""

    dtype: Literal["uint8", "float32"]
    shape: tuple[int | None, ...]


class PreprocessRecord(_Frozen):
    """The preprocessing that the model was trained on; see :mod:`contract.preprocessing`."""

    parameters: dict[str, Any]
    digest: Sha256
    probe_digest: Sha256


class DataSource(_Frozen):
    """A folder of images that training read.

    Attributes:
        name: the folder's name, never its full path.
        images: readable images found in it.
        digest: sha256 over the sorted sha256 values of its images.
    """

    name: str
    images: int = Field(ge=0)
    digest: Sha256


class Provenance(_Frozen):
    """How the version came to be.

    Attributes:
        recipe: name of the recipe, and the sha256 of its parameters.
        weights: what the backbone started from.
        protocol: how the data were split (``clean``, ``grouped`` or ``published``).
        counts: images per split after de-duplication.
        packages: versions of what training ran on.
    """

    recipe: str
    recipe_digest: Sha256
    weights: str
    protocol: str
    seed: int
    data: tuple[DataSource, ...]
    counts: dict[str, int]
    packages: dict[str, str]


class TumorEvidence(_Frozen):
    """How class head and mask together say whether there is a tumour; fitted on validation.

    The tumour logit is ``bias + class_weight * L_class + mask_weight * L_mask``; see
    :mod:`contract.answer`.

    Attributes:
        mask_cells: so many of the mask's highest cells are averaged.
    """

    mask_cells: int = Field(ge=1)
    bias: FiniteFloat
    class_weight: FiniteFloat
    mask_weight: FiniteFloat


class ConformalRecord(_Frozen):
    """Which classes belong to the prediction set; calibrated on validation.

    Attributes:
        coverage: share of slices whose set holds the true class, as aimed for.
        threshold: probability from which a class is in the set.
    """

    coverage: float = Field(gt=0, lt=1)
    threshold: Share


class OperatingPoint(_Frozen):
    """Where the version does not decide; chosen on validation.

    Attributes:
        sensitivity: share of the tumours that ``tumor_threshold`` finds there.
        target_sensitivity: share that it was chosen to find at least; None where it was not noted.
        refer_low, refer_high: a ``tumor_probability`` from the first up to, but without, the second
            is referred to a person. Equal ones refer nothing.
    """

    sensitivity: Share
    target_sensitivity: Share | None = None
    refer_low: Share
    refer_high: Share

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if self.refer_low > self.refer_high:
            raise ValueError("refer_low must not be above refer_high")
        return self


class RegionRecord(_Frozen):
    """When cells of the mask are reported as a region.

    Attributes:
        threshold: tumour probability from which a cell may belong to it.
        min_cells: connected cells that it needs.
        min_tumor_probability: of the slice; below it no region is reported.
    """

    threshold: float = Field(gt=0, le=1)
    min_cells: int = Field(ge=1)
    min_tumor_probability: Share


class OodRecord(_Frozen):
    """How far from the training data a slice may lie, in the embedding.

    Attributes:
        file: npz with ``means`` (k, d) and ``whitening`` (d, r), both float32, and perhaps with what
            tells turned slices; see :class:`contract.answer.EmbeddingSpace`.
        threshold: largest distance of a slice that is in distribution.
    """

    file: VersionPath
    threshold: FiniteFloat = Field(gt=0)


class AnswerRecord(_Frozen):
    """How outputs become an answer; :mod:`contract.answer` and :mod:`contract.region` do it.

    Attributes:
        temperature: logits are divided by it.
    """

    temperature: FiniteFloat = Field(gt=0)
    tumor: TumorEvidence | None = None
    conformal: ConformalRecord | None = None
    operating_point: OperatingPoint | None = None
    region: RegionRecord | None = None
    ood: OodRecord | None = None


class ReferenceRecord(_Frozen):
    """What the version answered on validation, with which its later answers are compared.

    Attributes:
        class_shares: class to the share of slices with that label.
        mean_confidence: mean probability of the label.
        out_of_distribution_rate: share of slices.
        embedding_distance_mean, embedding_distance_std: of the distance of :class:`OodRecord`.
    """

    class_shares: dict[str, Share]
    mean_confidence: Share
    out_of_distribution_rate: Share | None = None
    embedding_distance_mean: FiniteFloat | None = Field(None, ge=0)
    embedding_distance_std: FiniteFloat | None = Field(None, ge=0)


def _absent(value: object) -> bool:
    return value is None


class Manifest(_Frozen):
    """A model version.

    Attributes:
        schema_version: see :data:`SCHEMA_VERSION`; left out, it is the lowest that will do.
        classes: labels in the order of the model's output; printable, of at most 64 characters.
        tumor_classes: those of them that mean a tumour; their probabilities add up to
            ``tumor_probability``.
        tumor_threshold: ``tumor_probability`` from which the decision is ``tumor``.
        input: one batch of preprocessed slices.
        outputs: name to tensor; ``probabilities`` is always there, and :data:`OUTPUT_AXES` has what
            else is known.
        artifacts: runtime to the file or folder that it loads.
        metrics: what ``report/metrics.json`` holds in full, in short.
        answer: how outputs become an answer; without it ``probabilities`` is all of it.
        reference: what the answers of the version look like where all is well.
        files: every file of the version but the manifest itself.
    """

    schema_version: Literal[1, 2] = 1
    name: ModelName
    version: int = Field(ge=1, le=MAX_VERSION)
    created: datetime
    classes: tuple[ClassName, ...] = Field(min_length=2)
    tumor_classes: tuple[ClassName, ...] = Field(min_length=1)
    tumor_threshold: float = Field(gt=0, lt=1)
    input: TensorSpec
    outputs: dict[str, TensorSpec]
    preprocess: PreprocessRecord
    artifacts: dict[RuntimeName, VersionPath] = Field(min_length=1)
    metrics: dict[str, FiniteFloat]
    provenance: Provenance
    answer: AnswerRecord | None = Field(None, exclude_if=_absent)
    reference: ReferenceRecord | None = Field(None, exclude_if=_absent)
    files: tuple[FileEntry, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _lowest_schema(cls, fields: Any) -> Any:
        if not isinstance(fields, dict) or "schema_version" in fields:
            return fields
        records = (fields.get("answer"), fields.get("reference"))
        return {"schema_version": 1 if records == (None, None) else SCHEMA_VERSION, **fields}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes repeat")
        if len(set(self.tumor_classes)) != len(self.tumor_classes):
            raise ValueError("tumor_classes repeat")
        if not set(self.tumor_classes) < set(self.classes):
            raise ValueError("tumor_classes must be some, but not all, of the classes")
        if "probabilities" not in self.outputs:
            raise ValueError("outputs.probabilities is missing")
        parameters = self.preprocess.parameters
        if self.input.shape != (None, parameters.get("height"), parameters.get("width")):
            raise ValueError("the input's shape is not what the preprocessing gives")
        if self.schema_version == 1 and (self.answer or self.reference):
            raise ValueError("answer and reference need schema_version 2")
        return self

    @model_validator(mode="after")
    def _outputs_are_what_they_are_called(self) -> Self:
        count = len(self.classes)
        for name, form in OUTPUT_AXES.items():
            output = self.outputs.get(name)
            if output is None:
                continue
            batch, *sizes = output.shape or (0,)
            fits = batch is None and output.dtype == "float32" and len(sizes) == len(form)
            for axis, size in zip(form, sizes, strict=False):
                fits = fits and bool(size) and (axis != "classes" or size == count)
            if not fits:
                raise ValueError(f"outputs.{name} must be float32 of (None, {', '.join(form)})")
        return self

    @model_validator(mode="after")
    def _answer_has_its_outputs(self) -> Self:
        if self.reference and set(self.reference.class_shares) != set(self.classes):
            raise ValueError("reference.class_shares must have a share for each class")
        if self.answer is None:
            return self
        record = self.answer
        needed = {
            "logits": True,
            "mask": record.tumor is not None or record.region is not None,
            "embedding": record.ood is not None,
        }
        missing = [name for name, need in needed.items() if need and name not in self.outputs]
        if missing:
            raise ValueError(f"answer needs the outputs {', '.join(missing)}")
        cells = self.outputs["mask"].shape[1:] if "mask" in self.outputs else ()
        for name, least in (
            ("answer.tumor.mask_cells", record.tumor and record.tumor.mask_cells),
            ("answer.region.min_cells", record.region and record.region.min_cells),
        ):
            if least and least > math.prod(size or 0 for size in cells):
                raise ValueError(f"{name} is more than the mask has")
        return self
