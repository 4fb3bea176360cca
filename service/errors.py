"""What can go wrong with a request to the service, apart from its images (:mod:`contract.errors`).

ServiceError                       500  internal_error
├── BadRequest                     400  bad_request
│   ├── MalformedMultipart           400  malformed_multipart
│   ├── UnexpectedField              400  unexpected_field
│   ├── NoInput                      400  no_input
│   ├── InvalidParameter             400  invalid_parameter
│   ├── MalformedRequest             400  malformed_request
│   └── BodyTimeout                  400  body_timeout
├── RequestTooLarge                413  request_too_large
│   ├── BodyTooLarge                 413  body_too_large
│   ├── TooManyFiles                 413  too_many_files
│   ├── ZipTooLarge                  413  zip_too_large
│   ├── UnpackedTooLarge             413  unpacked_too_large
│   └── TooManySeries                413  too_many_series
├── Unauthenticated                401  unauthenticated, with WWW-Authenticate
├── Forbidden                      403  forbidden
│   ├── OtherSite                    403  other_site
│   └── UnknownHost                  403  unknown_host
├── NotAcceptable                  406  not_acceptable
│   └── NoDicomSource                406  no_dicom_source
├── HeadersTimeout                 408  headers_timeout
├── HeadersTooLarge                431  headers_too_large
├── RateExceeded                   429  rate_exceeded, with Retry-After
├── UnsupportedRequestMedia        415  unsupported_request_media_type
│   └── CompressedBody               415  the same code, with Accept-Encoding
├── UnusableZip                    422  unusable_zip
│   ├── DamagedZip                   422  damaged_zip
│   ├── EmptyZip                     422  empty_zip
│   ├── EncryptedZip                 422  encrypted_zip
│   ├── NestedZip                    422  nested_zip
│   └── UnsupportedZip               422  unsupported_zip
├── UnidentifiedSource             422  unidentified_source
├── NotExplainable                 501  not_explainable
├── ActivationRefused              409  the code of what was wrong with the version
├── NoEarlierVersion               409  no_earlier_version
├── OtherVersionServes             409  other_version_serves
├── OtherClasses                   409  other_classes
├── OtherPreprocessing             409  other_preprocessing
├── SameVersion                    409  same_version
├── Unavailable                    503  unavailable, with Retry-After
│   ├── QueueFull                    503  queue_full
│   ├── TooManyConnections           503  too_many_connections
│   ├── Draining                     503  draining
│   ├── SpoolFull                    503  spool_full
│   ├── SpoolUnreachable             503  spool_unreachable
│   ├── ModelLoading                 503  model_loading
│   ├── ModelUnavailable             503  the code of what is wrong with the version
│   ├── RuntimeUnusable              503  runtime_unusable
│   └── RuntimeLost                  503  runtime_lost
├── NoDestination                  501  no_destination
├── DeadlineExceeded               504  deadline_exceeded
└── InferenceFailed                500  inference_failed

Every message is safe to show to a client. An exception outside this tree and outside
:class:`contract.errors.ContractError` becomes a plain :class:`ServiceError`: a generic text for the
client, and its traceback in the log alone.
"""

from collections.abc import Mapping
from math import ceil
from typing import ClassVar, Self

from contract.errors import ContractError


class ServiceError(Exception):
    """Something unforeseen; the detail says no more, the log does.

    Base of the tree. Without a message it is the generic answer to an unknown error.
    """

    status: ClassVar[int] = 500
    code: str = "internal_error"

    @property
    def detail(self) -> str:
        """The message, safe to show to a client."""
        return str(self) or "the service failed to answer this request; its log says why"

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the answer."""
        return {}


Failure = ServiceError | ContractError
"""What an answer can be instead of a prediction: both trees have status, code and detail."""


class BadRequest(ServiceError):
    """The request is not what the interface describes; the detail names the place."""

    status = 400
    code = "bad_request"


class MalformedMultipart(BadRequest):
    """A multipart body, or its Content-Type, cannot be taken apart."""

    code = "malformed_multipart"


class UnexpectedField(BadRequest):
    """A form has another field than `files`."""

    code = "unexpected_field"


class NoInput(BadRequest):
    """There is no file in the request, or its body is empty."""

    code = "no_input"


class InvalidParameter(BadRequest):
    """A query parameter is unknown, comes twice or makes no sense; the detail names what there is."""

    code = "invalid_parameter"


class MalformedRequest(BadRequest):
    """No HTTP that can be understood, not one `Host`, or a study in the address that is no UID."""

    code = "malformed_request"


class BodyTimeout(BadRequest):
    """The body did not arrive in time (BRAIN_BODY_TIMEOUT_MS).

    Not 408: of a body that comes over a connection that had a request before, browsers take this as
    leave to send it all again by themselves (RFC 9110, 15.5.9), without end and unseen by the page.
    """

    code = "body_timeout"


class RequestTooLarge(ServiceError):
    status = 413
    code = "request_too_large"


class BodyTooLarge(RequestTooLarge):
    """The body has more bytes than are accepted (BRAIN_MAX_BODY_BYTES, BRAIN_STOW_MAX_BODY_BYTES)."""

    code = "body_too_large"


class TooManyFiles(RequestTooLarge):
    """More files or instances than are accepted (BRAIN_MAX_FILES, BRAIN_STOW_MAX_INSTANCES)."""

    code = "too_many_files"

    @classmethod
    def of(cls, holder: str, most: int, kind: str = "file") -> Self:
        """Says how many there may be, and in what."""
        number = f"one {kind}" if most == 1 else f"{most} {kind}s"
        return cls(f"{holder} may have {number} here")


class TooManySeries(RequestTooLarge):
    """DICOM objects were asked for, of more series than one answer may have."""

    code = "too_many_series"


class ZipTooLarge(RequestTooLarge):
    """A zip file unpacks to over BRAIN_MAX_BODY_BYTES or 100 times its size, or has a big directory."""

    code = "zip_too_large"


class UnpackedTooLarge(RequestTooLarge):
    """A request and what its DICOM objects inflate to are too large (BRAIN_MAX_BUFFERED_BYTES)."""

    code = "unpacked_too_large"


class UnusableZip(ServiceError):
    status = 422
    code = "unusable_zip"


class DamagedZip(UnusableZip):
    """The zip file is no readable archive, or a file in it is damaged."""

    code = "damaged_zip"


class EmptyZip(UnusableZip):
    """There is no file in the zip file."""

    code = "empty_zip"


class EncryptedZip(UnusableZip):
    """The zip file needs a password."""

    code = "encrypted_zip"


class NestedZip(UnusableZip):
    """There is a zip file in the zip file."""

    code = "nested_zip"


class UnsupportedZip(UnusableZip):
    """The zip file is packed with another method than deflate."""

    code = "unsupported_zip"


class Unauthenticated(ServiceError):
    """There are API keys here, and the request has none that is valid."""

    status = 401
    code = "unauthenticated"

    @property
    def headers(self) -> Mapping[str, str]:
        """The scheme to authenticate with (RFC 6750, section 3)."""
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(ServiceError):
    """The API key lacks the role."""

    status = 403
    code = "forbidden"


class OtherSite(Forbidden):
    """There are no API keys here, and a web page of another site sent the request."""

    code = "other_site"


class UnknownHost(Forbidden):
    """Without API keys, `Host` is a name that is not in BRAIN_ALLOWED_HOSTS; what is open takes any."""

    code = "unknown_host"


class NotAcceptable(ServiceError):
    """The header `Accept` takes none of the forms that the answer has."""

    status = 406
    code = "not_acceptable"


class NoDicomSource(NotAcceptable):
    """DICOM objects were asked for, and no input is one, or a file outside an archive is none."""

    code = "no_dicom_source"


class HeadersTimeout(ServiceError):
    """The headers did not arrive in time (BRAIN_HEADER_TIMEOUT_MS)."""

    status = 408
    code = "headers_timeout"


class HeadersTooLarge(ServiceError):
    """Request line and headers have more bytes than are accepted."""

    status = 431
    code = "headers_too_large"


class RateExceeded(ServiceError):
    """The client asks too often (BRAIN_RATE_PER_SECOND), or sends on without waiting for answers."""

    status = 429
    code = "rate_exceeded"

    def __init__(self, detail: str, wait_seconds: float) -> None:
        super().__init__(detail)
        self._wait_seconds = wait_seconds

    @property
    def headers(self) -> Mapping[str, str]:
        """When to try again."""
        return {"Retry-After": str(ceil(self._wait_seconds))}


class UnsupportedRequestMedia(ServiceError):
    """The header `Content-Type` names nothing that the address takes, or the body is compressed."""

    status = 415
    code = "unsupported_request_media_type"


class CompressedBody(UnsupportedRequestMedia):
    """The header `Content-Encoding` names a coding."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The only coding that is taken (RFC 9110, section 12.5.3)."""
        return {"Accept-Encoding": "identity"}


class UnidentifiedSource(ServiceError):
    """DICOM results cannot refer to the input: no or a shared UID, unknown class, several patients."""

    status = 422
    code = "unidentified_source"


class NotExplainable(ServiceError):
    """The active version has nothing that shows where its answer comes from."""

    status = 501
    code = "not_explainable"


class ActivationRefused(ServiceError):
    """The version asked for must not serve; the one before it still does."""

    status = 409

    def __init__(self, reason: Failure) -> None:
        super().__init__(reason.detail)
        self.code = reason.code


class NoEarlierVersion(ServiceError):
    """A rollback finds nothing to go back to."""

    status = 409
    code = "no_earlier_version"


class OtherVersionServes(ServiceError):
    """While this rollback waited, another activation finished; nothing was rolled back."""

    status = 409
    code = "other_version_serves"


class OtherClasses(ServiceError):
    """The newest version has other classes than the one that serves, and nobody activated it."""

    status = 409
    code = "other_classes"


class OtherPreprocessing(ServiceError):
    """The shadow version has another preprocessing than the one that serves: nothing to compare."""

    status = 409
    code = "other_preprocessing"


class SameVersion(ServiceError):
    """The shadow version is the one that serves: nothing to compare."""

    status = 409
    code = "same_version"


class Unavailable(ServiceError):
    status = 503
    code = "unavailable"
    retry_after_seconds: ClassVar[int] = 1

    @property
    def headers(self) -> Mapping[str, str]:
        """When to try again."""
        return {"Retry-After": str(self.retry_after_seconds)}


class QueueFull(Unavailable):
    """No room for slices (BRAIN_QUEUE_SIZE), bytes (BRAIN_MAX_BUFFERED_BYTES) or STOW-RS requests."""

    code = "queue_full"


class TooManyConnections(Unavailable):
    """There are as many connections as the service can take (BRAIN_MAX_CONNECTIONS)."""

    code = "too_many_connections"


class Draining(Unavailable):
    """The service is about to stop."""

    code = "draining"
    retry_after_seconds = 5


class SpoolFull(Unavailable):
    """The spool has no room for a series (BRAIN_SPOOL_MAX_BYTES), or its disk does not take it."""

    code = "spool_full"
    retry_after_seconds = 30


class SpoolUnreachable(Unavailable):
    """The spool's disk does not answer, or fails: nothing is listed, or not all is tried again."""

    code = "spool_unreachable"
    retry_after_seconds = 30


class ModelLoading(Unavailable):
    """The service has just started, and its model is not warmed up."""

    code = "model_loading"


class ModelUnavailable(Unavailable):
    """The configured version must not serve, and no other one does."""

    retry_after_seconds = 30

    def __init__(self, reason: Failure) -> None:
        super().__init__(reason.detail)
        self.code = reason.code


class RuntimeUnusable(Unavailable):
    """Runtime not installed, no such device, failed warm-up, or a SavedModel that may reach files."""

    code = "runtime_unusable"
    retry_after_seconds = 30


class RuntimeLost(Unavailable):
    """What predicts died or hangs, and is being built anew."""

    code = "runtime_lost"


class NoDestination(ServiceError):
    """There is no PACS that results would go to (BRAIN_DICOMWEB_URL)."""

    status = 501
    code = "no_destination"


class DeadlineExceeded(ServiceError):
    """The answer was not ready in time (BRAIN_DEADLINE_MS)."""

    status = 504
    code = "deadline_exceeded"


class InferenceFailed(ServiceError):
    """The model failed on the batch with this slice; the log says why."""

    code = "inference_failed"
