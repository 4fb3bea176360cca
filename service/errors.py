"""What can go wrong with a request to the service, apart from its images (:mod:`contract.errors`).

ServiceError                       500  internal_error
├── BadRequest                     400  bad_request
│   ├── MalformedMultipart           400  malformed_multipart
│   ├── UnexpectedField              400  unexpected_field
│   ├── NoInput                      400  no_input
│   ├── InvalidParameter             400  invalid_parameter
│   └── MalformedRequest             400  malformed_request
├── RequestTooLarge                413
│   ├── BodyTooLarge                 413  body_too_large
│   ├── TooManyFiles                 413  too_many_files
│   ├── ZipTooLarge                  413  zip_too_large
│   └── TooManySeries                413  too_many_series
├── Unauthenticated                401  unauthenticated, with WWW-Authenticate
├── Forbidden                      403  forbidden
├── NotAcceptable                  406  not_acceptable
│   └── NoDicomSource                406  no_dicom_source
├── BodyTimeout                    408  body_timeout
├── HeadersTimeout                 408  headers_timeout
├── HeadersTooLarge                431  headers_too_large
├── RateExceeded                   429  rate_exceeded, with Retry-After
├── UnsupportedRequestMedia        415  unsupported_request_media_type
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
├── Unavailable                    503  with Retry-After
│   ├── QueueFull                    503  queue_full
│   ├── TooManyConnections           503  too_many_connections
│   ├── Draining                     503  draining
│   ├── SpoolFull                    503  spool_full
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
from typing import ClassVar

from contract.errors import ContractError


class ServiceError(Exception):
    """Base of the tree; without a message it is the generic answer to an unknown error."""

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
    status = 400
    code = "bad_request"


class MalformedMultipart(BadRequest):
    code = "malformed_multipart"


class UnexpectedField(BadRequest):
    code = "unexpected_field"


class NoInput(BadRequest):
    code = "no_input"


class InvalidParameter(BadRequest):
    code = "invalid_parameter"


class MalformedRequest(BadRequest):
    code = "malformed_request"


class RequestTooLarge(ServiceError):
    status = 413
    code = "request_too_large"


class BodyTooLarge(RequestTooLarge):
    code = "body_too_large"


class TooManyFiles(RequestTooLarge):
    code = "too_many_files"


class TooManySeries(RequestTooLarge):
    code = "too_many_series"


class ZipTooLarge(RequestTooLarge):
    code = "zip_too_large"


class UnusableZip(ServiceError):
    status = 422
    code = "unusable_zip"


class DamagedZip(UnusableZip):
    code = "damaged_zip"


class EmptyZip(UnusableZip):
    code = "empty_zip"


class EncryptedZip(UnusableZip):
    code = "encrypted_zip"


class NestedZip(UnusableZip):
    code = "nested_zip"


class UnsupportedZip(UnusableZip):
    code = "unsupported_zip"


class Unauthenticated(ServiceError):
    status = 401
    code = "unauthenticated"

    @property
    def headers(self) -> Mapping[str, str]:
        """The scheme to authenticate with (RFC 6750, section 3)."""
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(ServiceError):
    status = 403
    code = "forbidden"


class NotAcceptable(ServiceError):
    status = 406
    code = "not_acceptable"


class NoDicomSource(NotAcceptable):
    """DICOM objects were asked for, and an input is none that they could refer to."""

    code = "no_dicom_source"


class BodyTimeout(ServiceError):
    status = 408
    code = "body_timeout"


class HeadersTimeout(ServiceError):
    status = 408
    code = "headers_timeout"


class HeadersTooLarge(ServiceError):
    status = 431
    code = "headers_too_large"


class RateExceeded(ServiceError):
    """The client asks more often than it may."""

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
    status = 415
    code = "unsupported_request_media_type"


class UnidentifiedSource(ServiceError):
    """A DICOM object that results cannot refer to."""

    status = 422
    code = "unidentified_source"


class NotExplainable(ServiceError):
    """The version has nothing that shows where its answer comes from."""

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


class Unavailable(ServiceError):
    status = 503
    code = "unavailable"
    retry_after_seconds: ClassVar[int] = 1

    @property
    def headers(self) -> Mapping[str, str]:
        """When to try again."""
        return {"Retry-After": str(self.retry_after_seconds)}


class QueueFull(Unavailable):
    code = "queue_full"


class TooManyConnections(Unavailable):
    code = "too_many_connections"


class Draining(Unavailable):
    code = "draining"
    retry_after_seconds = 5


class SpoolFull(Unavailable):
    """What was accepted and not yet delivered leaves no room for more."""

    code = "spool_full"
    retry_after_seconds = 30


class ModelLoading(Unavailable):
    code = "model_loading"


class ModelUnavailable(Unavailable):
    """The configured version must not serve, and no other one does."""

    retry_after_seconds = 30

    def __init__(self, reason: Failure) -> None:
        super().__init__(reason.detail)
        self.code = reason.code


class RuntimeUnusable(Unavailable):
    """The runtime cannot run this version here: not installed, no such device, failed warm-up."""

    code = "runtime_unusable"
    retry_after_seconds = 30


class RuntimeLost(Unavailable):
    """The inference thread died or hangs; a new runtime is being built."""

    code = "runtime_lost"


class NoDestination(ServiceError):
    """Results of what is stored here would go nowhere."""

    status = 501
    code = "no_destination"


class DeadlineExceeded(ServiceError):
    status = 504
    code = "deadline_exceeded"


class InferenceFailed(ServiceError):
    code = "inference_failed"
