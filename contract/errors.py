"""What can be wrong with an image or with a stored model version.

ContractError
├── DecodeError              the bytes are no slice that a model may see
│   ├── UnsupportedMedia       415  neither JPEG, PNG nor DICOM
│   ├── UndecodableImage       422  damaged beyond reading
│   ├── TruncatedImage         422  ends before its pixels do
│   ├── TooManyPixels          413  larger than the pixel limit
│   ├── TooManyFrames          413  more frames than are accepted
│   ├── DecoderFailed          422  a decoder in a process of its own failed on it
│   │   ├── DecoderCrashed, DecoderTimedOut, DecoderOutOfMemory
│   │   └── DecoderUnavailable   503  no such process can be started now
│   └── DicomError             422  a DICOM object that holds no usable MR slice
│       ├── NotAnImage, NoPixelData, NotMr, UnsupportedSopClass, NotHead, Localizer, Mosaic
│       ├── UnsupportedTransferSyntax, UnsupportedPixels, MultiFrame
└── StoreError               the version must not serve
    ├── VersionNotFound        nothing of that name and number
    ├── VersionExists          versions are immutable, a number is used once
    ├── IncompleteVersion      a file that the manifest names is missing
    ├── CorruptVersion         a file or the manifest is not what was published
    ├── NewerSchema            written by a later release of this project
    ├── PreprocessMismatch     its preprocessing cannot be reproduced here
    ├── InvalidAlias           a word that cannot be an alias
    └── ReadOnlyStore          nothing can be changed in it from here

Every message is safe to show to a client: it never holds pixel values, file contents or DICOM
attribute values.
"""

from typing import ClassVar


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


class UnsupportedMedia(DecodeError):
    code = "unsupported_media_type"
    status = 415


class UndecodableImage(DecodeError):
    code = "undecodable_image"


class TruncatedImage(DecodeError):
    code = "truncated_image"


class TooManyPixels(DecodeError):
    code = "too_many_pixels"
    status = 413


class TooManyFrames(DecodeError):
    code = "too_many_frames"
    status = 413


class DecoderFailed(DecodeError):
    code = "decoder_failed"


class DecoderCrashed(DecoderFailed):
    code = "decoder_crashed"


class DecoderTimedOut(DecoderFailed):
    code = "decoder_timed_out"


class DecoderOutOfMemory(DecoderFailed):
    code = "decoder_out_of_memory"


class DecoderUnavailable(DecoderFailed):
    code = "decoder_unavailable"
    status = 503


class DicomError(DecodeError):
    code = "unusable_dicom"


class NoPixelData(DicomError):
    code = "no_pixel_data"


class NotAnImage(DicomError):
    code = "not_an_image"


class NotMr(DicomError):
    code = "not_mr"


class UnsupportedSopClass(DicomError):
    code = "unsupported_sop_class"


class NotHead(DicomError):
    code = "not_head"


class Localizer(DicomError):
    code = "localizer"


class Mosaic(DicomError):
    code = "mosaic"


class UnsupportedTransferSyntax(DicomError):
    code = "unsupported_transfer_syntax"


class UnsupportedPixels(DicomError):
    code = "unsupported_pixels"


class MultiFrame(DicomError):
    code = "multi_frame"


class StoreError(ContractError):
    code = "model_store_error"
    status = 503


class VersionNotFound(StoreError):
    code = "version_not_found"
    status = 404


class VersionExists(StoreError):
    code = "version_exists"
    status = 409


class IncompleteVersion(StoreError):
    code = "incomplete_version"


class CorruptVersion(StoreError):
    code = "corrupt_version"


class NewerSchema(StoreError):
    code = "newer_schema"


class PreprocessMismatch(StoreError):
    code = "preprocess_mismatch"


class InvalidAlias(StoreError):
    code = "invalid_alias"
    status = 422


class ReadOnlyStore(StoreError):
    code = "read_only_store"
    status = 409
