"""What a published model version says of itself: ``manifest.json``."""

from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, model_validator

SCHEMA_VERSION: Final = 1
"""Raised when a manifest can no longer be read by the release before."""

RuntimeName = Literal["litert", "tensorflow"]
"""The runtimes that a version can hold an artifact for."""

MODEL_NAME_PATTERN: Final = r"[a-z0-9][a-z0-9._-]{0,63}"
"""A model's name, which is a folder's name in the store."""


def _inside_version(path: str) -> str:
    pure = PurePosixPath(path)
    if not pure.parts or pure.is_absolute() or ".." in pure.parts or "\\" in path:
        raise ValueError("must be a relative path inside the version")
    if path != pure.as_posix():
        raise ValueError("must be written in its shortest form")
    return path


VersionPath = Annotated[str, AfterValidator(_inside_version)]
ModelName = Annotated[str, Field(pattern=f"^{MODEL_NAME_PATTERN}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


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
        protocol: how the data were split (``clean`` or ``published``).
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


class Manifest(_Frozen):
    """A model version.

    Attributes:
        schema_version: see :data:`SCHEMA_VERSION`.
        classes: labels in the order of the model's output.
        tumor_classes: those of them that mean a tumour; their probabilities add up to
            ``tumor_probability``.
        tumor_threshold: ``tumor_probability`` from which the decision is ``tumor``.
        input: one batch of preprocessed slices.
        outputs: name to tensor; ``probabilities`` is always there.
        artifacts: runtime to the file or folder that it loads.
        metrics: what ``report/metrics.json`` holds in full, in short.
        files: every file of the version but the manifest itself.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: ModelName
    version: int = Field(ge=1)
    created: datetime
    classes: tuple[str, ...] = Field(min_length=2)
    tumor_classes: tuple[str, ...] = Field(min_length=1)
    tumor_threshold: float = Field(gt=0, lt=1)
    input: TensorSpec
    outputs: dict[str, TensorSpec]
    preprocess: PreprocessRecord
    artifacts: dict[RuntimeName, VersionPath] = Field(min_length=1)
    metrics: dict[str, FiniteFloat]
    provenance: Provenance
    files: tuple[FileEntry, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes repeat")
        if not set(self.tumor_classes) < set(self.classes):
            raise ValueError("tumor_classes must be some, but not all, of the classes")
        probabilities = self.outputs.get("probabilities")
        if probabilities is None or probabilities.shape != (None, len(self.classes)):
            raise ValueError("outputs.probabilities must have one value for each class")
        parameters = self.preprocess.parameters
        if self.input.shape != (None, parameters.get("height"), parameters.get("width")):
            raise ValueError("the input's shape is not what the preprocessing gives")
        return self
