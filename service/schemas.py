"""Answers as OpenAPI describes them.

The routes build their answers as plain dicts, which costs a tenth of the time; a test holds real
answers to these models.
"""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.catalogue import CODES

Decided = Literal["tumor", "no_tumor", "refer"]


class Schema(BaseModel):
    """Has the fields that it lists, and no others."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Model(Schema):
    """The version that answered."""

    name: str = Field(examples=["brain-tumor"])
    version: int = Field(examples=[4])
    runtime: Literal["litert", "tensorflow"]
    device: str = Field(description="'cpu' or the GPU's name.", examples=["cpu"])


class DicomPlace(Schema):
    """Where a DICOM input belongs."""

    sop_instance_uid: str | None
    study_instance_uid: str | None
    series_instance_uid: str | None
    frame: int = Field(description="Frame number, from 1.")


class InputError(Schema):
    """Why one input has no prediction."""

    status: int = Field(examples=[422])
    code: str = Field(examples=["truncated_image"])
    detail: str = Field(examples=["the image ends before its pixels do"])


class RunLengthMask(Schema):
    """A mask in COCO's run lengths, uncompressed."""

    encoding: Literal["rle"]
    size: tuple[int, int] = Field(description="Rows and columns.")
    counts: list[int] = Field(
        description="Lengths of runs, down the first column, then the next: outside, inside, outside "
        "and so on. The first may be 0."
    )


class PngMask(Schema):
    """A mask as a PNG file of black and white."""

    encoding: Literal["png"]
    size: tuple[int, int] = Field(description="Rows and columns.")
    data: str = Field(description="The file, base64.")


class Region(Schema):
    """Where the model sees the tumour, in pixels of the original image; of DICOM, the stored ones.

    A picture with an EXIF orientation is turned first.
    """

    source: Literal["mask", "cam"] = Field(
        description="`mask`: the model's tumour mask. `cam`: the activation map of the most probable "
        "tumour class, of a version without a mask; coarse, and no outline of a tumour."
    )
    box: tuple[int, int, int, int] = Field(
        description="Left, top, right, bottom; right and bottom are exclusive.",
        examples=[(158, 193, 238, 272)],
    )
    score: float = Field(
        ge=0,
        le=1,
        description="Mean inside: of the tumour probability, or of the share of the map's peak.",
    )
    area_pixels: int = Field(ge=1)
    area_mm2: float | None = Field(None, description="Only of DICOM with pixel spacing.")
    mask: RunLengthMask | PngMask | None = Field(
        None, description="Only with the query parameter `mask`."
    )


class Prediction(Schema):
    """An input that was predicted. A research result, not a diagnosis."""

    input: str | None = Field(
        description="The client's file name; null for a raw body, or a part with neither `filename` "
        "nor `filename*`."
    )
    label: str = Field(
        description="The class with the highest probability; of equally probable ones, the first that "
        "says what the decision does.",
        examples=["glioma"],
    )
    probability: float = Field(ge=0, le=1, description="Probability of the label.")
    probabilities: dict[str, float] = Field(description="Every class.")
    tumor_probability: float = Field(
        ge=0, le=1, description="Sum over the classes that mean a tumour."
    )
    decision: Decided = Field(
        description="Whether tumor_probability reaches the threshold, or that a person has to look: "
        "it lies in the band that is referred, or the slice is out of distribution."
    )
    prediction_set: list[str] | None = Field(
        None,
        description="Every class that is probable enough for the coverage that the version states; "
        "one at least, and every class of a slice that is not in distribution. Only of a version that "
        "was calibrated.",
    )
    in_distribution: bool | None = Field(
        None,
        description="False for a slice unlike all that the version was trained on, turned, upside "
        "down or in colour: ignore its other fields then. Only of a version that can tell, and of any "
        "picture in colour.",
    )
    region: Region | None = Field(
        None,
        description="Where the tumour is; null if nowhere, and of every slice whose tumor_probability "
        "is below the version's `region.min_tumor_probability`: the upper end of the band that is "
        "referred, in versions 2 to 4 of the default model. Only of a version that can tell.",
    )
    dicom: DicomPlace | None = Field(None, description="Only for DICOM input.")


class FailedInput(Schema):
    """A file that could not be read, or a slice that could not be predicted; the others were."""

    input: str | None
    error: InputError
    dicom: DicomPlace | None = Field(None, description="Only for a DICOM slice that is known.")


class Timing(Schema):
    """Milliseconds; of several inputs, the longest of each."""

    decode: float = Field(description="Decoding and preprocessing of an image.")
    queue: float = Field(description="Waiting for a decoding thread and for the runtime.")
    inference: float = Field(description="The batch with the image.")
    total: float = Field(description="From the first byte of the request to its answer.")


class SeriesSummary(Schema):
    """What the predicted slices of a DICOM series come to together."""

    study_instance_uid: str | None = Field(
        description="Series of two studies are two, even with one Series Instance UID."
    )
    series_instance_uid: str
    slices: int = Field(
        ge=1,
        description="Predicted slices; one that was sent twice counts once, different ones with one "
        "SOP Instance UID do not.",
    )
    failed: int = Field(
        ge=0,
        description="Slices that could not be read or predicted, and are of the series or do not say "
        "of which, and files that are empty or all zeros; not what is no slice of a head, such as a "
        "localizer.",
    )
    unfamiliar: int = Field(
        ge=0,
        description="Predicted slices that are out of distribution: the model cannot judge them.",
    )
    tumor_probability: float = Field(
        ge=0,
        le=1,
        description="The highest mean of the tumour probabilities of three neighbouring slices, in the "
        "order of their positions in the patient; of several at one position the highest counts.",
    )
    decision: Decided = Field(
        description="On the series, by the same thresholds as on a slice; `refer` also if one of "
        "the three slices is out of distribution, and in place of `no_tumor` if slices have failed or "
        "more than half of them are out of distribution."
    )
    most_suspicious: int = Field(
        description="The most suspicious of the three slices: its index in `predictions`."
    )
    window: list[int] = Field(
        description="The three slices; where several share a position, all that lie at the three."
    )
    suspicious: list[int] = Field(
        description="Slices whose own decision is not `no_tumor`, in the order of their positions."
    )


class _ModelAnswer(Schema):
    request_id: str
    model: Model
    tumor_classes: list[str] = Field(
        description="Those of the version's classes that mean a tumour; the others mean none.",
        examples=[["glioma", "meningioma", "pituitary"]],
    )


class PredictAnswer(_ModelAnswer):
    """One entry for each slice: the files in the request's order, the frames of each in theirs."""

    predictions: list[Prediction | FailedInput]
    series: list[SeriesSummary] | None = Field(
        None, description="Only with DICOM input that names its series."
    )
    timing_ms: Timing


class Heatmap(Schema):
    """How much each part of a slice speaks for a tumour."""

    source: Literal["mask", "cam", "explain"] = Field(
        description="`mask`: tumour probability. `cam`, `explain`: what speaks for the most probable "
        "tumour class, as a share of its highest value."
    )
    box: tuple[float, float, float, float] = Field(
        description="Left, top, right, bottom of the grid in pixels of the original image."
    )
    values: list[list[float]] = Field(description="Rows of cells, 0 to 1.")


class ExplainedPrediction(Prediction):
    """The entry of /predict, and the heat map."""

    heatmap: Heatmap


class ExplainAnswer(_ModelAnswer):
    """Where the answer to one slice comes from."""

    explanation: ExplainedPrediction
    timing_ms: Timing


class Problem(Schema):
    """A request that failed as a whole (RFC 9457)."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Service Unavailable"])
    status: int = Field(examples=[503])
    detail: str
    code: str = Field(
        description="Stable and machine-readable. The examples are all of this release; later ones may "
        "have more.",
        examples=[*CODES],
    )
    request_id: str
    errors: list[FailedInput] | None = Field(
        None, description="/predict, when every input failed: why each did."
    )


class Pacs(Schema):
    """The way from a PACS and back; nothing of it makes the service unready."""

    destination: Literal["ok", "unreachable"] = Field(description="Since the last delivery.")
    spool: Literal["ok", "unreachable"] = Field(
        description="`unreachable` where its disk stalls or fails: then the numbers are the last ones "
        "that are known."
    )
    series_waiting: int = Field(description="To be analysed.")
    instances_waiting: int = Field(description="Their images.")
    series_dead: int = Field(description="They could not be analysed.")
    objects_waiting: int = Field(description="Results to be delivered.")
    objects_dead: int = Field(description="Results that were given up.")
    oldest_seconds: float = Field(description="Age of the oldest result to be delivered.")
    spool_bytes: int
    spool_waiting_bytes: int = Field(description="Of what waits; the rest makes room by itself.")
    spool_max_bytes: int
    requests_refused: int = Field(
        description="STOW-RS requests since the start that were not stored, or not all of it, for what "
        "they are: 202, 409 or 413."
    )
    requests_turned_away: int = Field(
        description="STOW-RS requests since the start that might be stored at another time: 503."
    )


class OperatingPoint(Schema):
    """Where the version decides here, settings included; a request may move it for itself."""

    tumor_threshold: float = Field(
        description="`tumor_probability` from which the decision is `tumor`, unless it is `refer`.",
        examples=[0.556107],
    )
    refer_low: float | None = Field(
        None, description="From it up to, but without, `refer_high` the decision is `refer`."
    )
    refer_high: float | None = Field(None, description="See `refer_low`. Equal ones refer nothing.")
    sensitivity: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the slices with a tumour that reached the threshold on validation. Not "
        "where a setting moves the threshold or the calibration.",
    )


class Health(Schema):
    """Whether predictions are answered, and if not, why."""

    status: Literal["ready", "starting", "draining", "unavailable"]
    model: Model | None
    uptime_seconds: float
    queue_depth: int = Field(description="Images in the service now.")
    operating_point: OperatingPoint | None = Field(None, description="Only with a model.")
    code: str | None = Field(None, description="Only while not ready.")
    reason: str | None = Field(None, description="Only while not ready.")
    pacs: Pacs | None = Field(None, description="Only with BRAIN_DICOMWEB_URL.")


class Liveness(Schema):
    """The process answers; nothing is said of the model."""

    status: Literal["alive"]


class VersionError(Schema):
    """Why a version cannot be described, or must not serve."""

    code: str
    detail: str


class Version(Schema):
    """A version in the store. It is verified file by file only when it is loaded.

    One that was deleted is listed as long as an alias points at it, or it serves.
    """

    version: int
    active: bool
    aliases: list[str]
    created: datetime | None = None
    classes: list[str] | None = None
    tumor_classes: list[str] | None = Field(None, description="Those of them that mean a tumour.")
    runtimes: list[str] | None = None
    metrics: dict[str, float] | None = None
    error: VersionError | None = Field(
        None,
        description="It cannot be described: it is damaged, or gone (`version_not_found`), and an "
        "alias of it points at nothing.",
    )
    refused: VersionError | None = Field(
        None,
        description="It was to become the active one the last time that this was tried. With the code "
        "`other_classes` it is the newest, which BRAIN_WATCH does not let serve by itself before "
        "the next start, as its classes are not those of the version that serves.",
    )


class StoredModel(Schema):
    """A model and its versions, ascending."""

    name: str
    versions: list[Version]


class Shadow(Schema):
    """The version beside the active one, whose answers only go into the metrics."""

    selector: str = Field(description="BRAIN_SHADOW_VERSION.", examples=["canary"])
    name: str = Field(description="Of its model, which is BRAIN_MODEL.", examples=["brain-tumor"])
    version: int | None = Field(description="Its number, once it was loaded.")
    status: Literal["loading", "running", "paused", "failed"]
    error: VersionError | None = Field(
        None,
        description="Why it compares nothing. One that failed is tried again at the next start only; "
        "one that is paused goes on once a version with its preprocessing serves "
        "(`other_preprocessing`), or another one than itself (`same_version`).",
    )


class ModelList(Schema):
    """The store."""

    models: list[StoredModel]
    follows: str | None = Field(
        description="`latest` or the alias whose changes the service acts on, with BRAIN_WATCH."
    )
    shadow: Shadow | None = Field(description="Only with BRAIN_SHADOW_VERSION.")


class Activation(Schema):
    """The version that answers from now on, and the one that did before."""

    model: Model
    previous: Model | None


class Alias(Schema):
    """An alias, the version that it points at, and the one before."""

    alias: str
    version: int = Field(description="Its number, also where `latest` or an alias was given.")
    previous: int | None
