"""What can be wrong with an image or with a stored model version.

ContractError
├── DecodeError              the bytes are no slice that a model may see
│   ├── UnsupportedMedia       415  neither JPEG, PNG nor DICOM
│   ├── UndecodableImage       422  damaged beyond reading, or of more pixels than stated
│   ├── TruncatedImage         422  ends before its pixels do
│   ├── TooManyPixels          413  larger than the pixel limit
│   ├── TooManyFrames          413  more frames than are accepted
│   ├── DecoderFailed          422  a decoder in a process of its own failed on it
│   │   ├── DecoderCrashed, DecoderTimedOut, DecoderOutOfMemory
│   │   └── DecoderUnavailable   503  no such process can be started now
│   └── DicomError             422  a DICOM object that holds no usable MR slice
│       ├── NotAnImage, NoPixelData, NotMr, UnsupportedSopClass, NotHead, Localizer, Mosaic
│       ├── NotPatient, NotMagnitude
│       ├── UnsupportedTransferSyntax, UnsupportedPixels, MultiFrame
└── StoreError               the version must not serve
    ├── VersionNotFound        nothing of that name and number
    ├── VersionExists          versions are immutable, a number is used once
    ├── IncompleteVersion      a file that the manifest names is missing
    ├── CorruptVersion         a file or the manifest is not what was published
    ├── CorruptStore           a file that belongs to no version is damaged
    ├── NewerSchema            written by a later release of this project
    ├── PreprocessMismatch     its preprocessing cannot be reproduced here
    ├── InvalidAlias           a word that cannot be an alias
    └── ReadOnlyStore          nothing can be changed in it from here

Every message is safe to show to a client: it never holds pixel values, file contents or DICOM
attribute values.
"""

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from contract.preprocessing import DicomReference


class ContractError(Exception):
    """Base of the tree; ``code`` is stable and machine-readable, ``status`` the HTTP status."""

    code: ClassVar[str] = "contract_error"
    status: ClassVar[int] = 500

    @property
    def detail(self) -> str:
        """The message, safe to show to a client."""
        return str(self)


class DecodeError(ContractError):
    code = "decode_error"
    status = 422

    dicom: "DicomReference | None" = None
    """Where in a study the slice belongs, of a DICOM object that is refused before it is open though
    its header can be read; else None."""

    study: str | None = None
    """Its Study Instance UID, likewise."""


class UnsupportedMedia(DecodeError):
    """Neither JPEG, PNG nor DICOM; DICOM without preamble and `DICM` counts as none."""

    code = "unsupported_media_type"
    status = 415


class UndecodableImage(DecodeError):
    """The file is damaged beyond reading, or holds more pixels than it states."""

    code = "undecodable_image"


class TruncatedImage(DecodeError):
    """The file ends before its pixels do, or has fewer frames than it states."""

    code = "truncated_image"


class TooManyPixels(DecodeError):
    """A slice has more pixels than are accepted, or unpacks to more."""

    code = "too_many_pixels"
    status = 413


class TooManyFrames(DecodeError):
    """There are more slices in the request than are accepted."""

    code = "too_many_frames"
    status = 413


class DecoderFailed(DecodeError):
    code = "decoder_failed"


class DecoderCrashed(DecoderFailed):
    """The decoder of the slice crashed, as on damaged input."""

    code = "decoder_crashed"


class DecoderTimedOut(DecoderFailed):
    """The decoder of the slice took too long."""

    code = "decoder_timed_out"


class DecoderOutOfMemory(DecoderFailed):
    """The decoder of the slice took more memory than it may."""

    code = "decoder_out_of_memory"


class DecoderUnavailable(DecoderFailed):
    """No process can be started for a decoder, or for DICOM objects, now."""

    code = "decoder_unavailable"
    status = 503


class DicomError(DecodeError):
    code = "unusable_dicom"


class NoPixelData(DicomError):
    """The DICOM object is an image without its pixels."""

    code = "no_pixel_data"


class NotAnImage(DicomError):
    """The DICOM object is a report, a plan, a curve, a palette, a directory or of spectroscopy."""

    code = "not_an_image"


class NotMr(DicomError):
    """The DICOM object is a CT, an ultrasound image or the like."""

    code = "not_mr"


class UnsupportedSopClass(DicomError):
    """The DICOM object is of MR, but no MR image, such as a Secondary Capture."""

    code = "unsupported_sop_class"


class NotHead(DicomError):
    """The DICOM object shows another body part."""

    code = "not_head"


class NotPatient(DicomError):
    """The DICOM object shows an animal or a phantom."""

    code = "not_patient"


class NotMagnitude(DicomError):
    """The DICOM object is a phase, real, imaginary or velocity image, a map or a difference."""

    code = "not_magnitude"


class Localizer(DicomError):
    """The DICOM object is a localizer, or a projection of slices."""

    code = "localizer"


class Mosaic(DicomError):
    """The DICOM object has many small slices in one picture."""

    code = "mosaic"


class UnsupportedTransferSyntax(DicomError):
    """The DICOM object's transfer syntax is none that is read."""

    code = "unsupported_transfer_syntax"


class UnsupportedPixels(DicomError):
    """The DICOM object has other bits than are read, or colours that are more than a tint of grey."""

    code = "unsupported_pixels"


class MultiFrame(DicomError):
    """The DICOM object has many frames where a single slice is wanted."""

    code = "multi_frame"


class StoreError(ContractError):
    """The model store cannot be read, or does not answer."""

    code = "model_store_error"
    status = 503


class VersionNotFound(StoreError):
    """There is no version of that name and number, and no such alias."""

    code = "version_not_found"
    status = 404


class VersionExists(StoreError):
    """There is a version of that number already, and versions never change."""

    code = "version_exists"
    status = 409


class IncompleteVersion(StoreError):
    """A file that the version's manifest names is missing."""

    code = "incomplete_version"


class CorruptVersion(StoreError):
    """The manifest or a file of the version is not what was published."""

    code = "corrupt_version"


class CorruptStore(StoreError):
    """`aliases.json` or `highest.json` of the model is damaged, and has to come from a backup."""

    code = "corrupt_store"
    status = 409


class NewerSchema(StoreError):
    """The version was written by a later release of this project."""

    code = "newer_schema"


class PreprocessMismatch(StoreError):
    """The version's preprocessing cannot be reproduced by this release."""

    code = "preprocess_mismatch"


class InvalidAlias(StoreError):
    """An alias is a lower-case word other than `latest`, and this is none."""

    code = "invalid_alias"
    status = 422


class ReadOnlyStore(StoreError):
    """The store of models cannot be written from here."""

    code = "read_only_store"
    status = 409
