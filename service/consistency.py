"""What settings must be to one another, whatever each is on its own."""

import re
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from service.choices import Device, RuntimeChoice

if TYPE_CHECKING:  # which checks itself here
    from service.settings import Settings

PLACEHOLDERS: Final = frozenset(
    {"...", "…", "changeme", "change-me", "password", "secret", "token"}
)
"""Secrets that somebody forgot to replace; the service does not start with one."""

_TOKEN: Final = re.compile(r"[!-~]+")
"""What a header holds without blanks. More than RFC 6750, section 2.1, lets a token have."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

INTAKE_SHARE: Final = 0.75
"""Of the spool that instances may take; the rest is for results, without which no room gets free."""


def check(settings: "Settings") -> None:
    """Does nothing for settings that agree with one another.

    Raises:
        ValueError: two of them do not; the message names them.
    """
    _only_this_machine_comes_without_a_key(settings)
    _only_tensorflow_uses_a_gpu(settings)
    _what_is_watched_can_change(settings)
    _a_band_has_two_ends_in_order(settings)
    _a_whole_body_fits_into_memory(settings)
    _an_instance_fits_into_its_body(settings)
    _a_whole_body_fits_into_the_spool(settings)
    _the_first_wait_is_not_above_the_longest(settings)
    _credentials_of_the_destination_are_complete_and_one(settings)


def _only_this_machine_comes_without_a_key(settings: "Settings") -> None:
    guarded = settings.api_keys_file is not None or settings.allow_anonymous
    if not guarded and not _is_loopback(settings.host):
        raise ValueError(
            "BRAIN_HOST is not a loopback address, so whoever reaches it could use the service: "
            "name a file of API keys in BRAIN_API_KEYS_FILE, "
            "or set BRAIN_ALLOW_ANONYMOUS=true where something else keeps strangers out"
        )


def _only_tensorflow_uses_a_gpu(settings: "Settings") -> None:
    if settings.device is Device.GPU and settings.runtime is RuntimeChoice.LITERT:
        raise ValueError("BRAIN_DEVICE=gpu is for TensorFlow; BRAIN_RUNTIME is litert")


def _what_is_watched_can_change(settings: "Settings") -> None:
    if settings.watch and settings.model_version.isdecimal():
        raise ValueError(
            "BRAIN_WATCH follows `latest` or an alias; BRAIN_MODEL_VERSION is a number, which "
            "always stands for the same version"
        )


def _a_band_has_two_ends_in_order(settings: "Settings") -> None:
    low, high = settings.refer_low, settings.refer_high
    if (low is None) != (high is None):
        raise ValueError("BRAIN_REFER_LOW and BRAIN_REFER_HIGH must be set together")
    if low is not None and high is not None and low > high:
        raise ValueError("BRAIN_REFER_LOW must not be above BRAIN_REFER_HIGH")


def _a_whole_body_fits_into_memory(settings: "Settings") -> None:
    # Its zip files may unpack to as much again, and are in memory until the answer.
    if 2 * settings.max_body_bytes > settings.max_buffered_bytes:
        raise ValueError(
            "BRAIN_MAX_BUFFERED_BYTES must be at least twice BRAIN_MAX_BODY_BYTES, for a body and what "
            "it unpacks to: such a request always got 503"
        )


def _an_instance_fits_into_its_body(settings: "Settings") -> None:
    if settings.stow_max_instance_bytes > settings.stow_max_body_bytes:
        raise ValueError(
            "BRAIN_STOW_MAX_INSTANCE_BYTES must not exceed BRAIN_STOW_MAX_BODY_BYTES: "
            "such an instance always got 413"
        )


def _a_whole_body_fits_into_the_spool(settings: "Settings") -> None:
    # Without a destination nothing is spooled.
    if settings.dicomweb_url is None:
        return
    if settings.stow_max_body_bytes > INTAKE_SHARE * settings.spool_max_bytes:
        raise ValueError(
            f"BRAIN_STOW_MAX_BODY_BYTES must not exceed {INTAKE_SHARE:.0%} of BRAIN_SPOOL_MAX_BYTES, "
            "which is what instances may take of it: such a request always got 503"
        )


def _the_first_wait_is_not_above_the_longest(settings: "Settings") -> None:
    if settings.dicomweb_retry_ms > settings.dicomweb_retry_max_ms:
        raise ValueError("BRAIN_DICOMWEB_RETRY_MS must not exceed BRAIN_DICOMWEB_RETRY_MAX_MS")


def _credentials_of_the_destination_are_complete_and_one(settings: "Settings") -> None:
    if (settings.dicomweb_user is None) != (settings.dicomweb_password is None):
        raise ValueError("BRAIN_DICOMWEB_USER and BRAIN_DICOMWEB_PASSWORD go together")
    if settings.dicomweb_user is not None and settings.dicomweb_token is not None:
        raise ValueError(
            "BRAIN_DICOMWEB_TOKEN takes the place of BRAIN_DICOMWEB_USER and its password"
        )
    secrets = (settings.dicomweb_password, settings.dicomweb_token)
    password, token = (None if secret is None else secret.get_secret_value() for secret in secrets)
    if password in PLACEHOLDERS or token in PLACEHOLDERS:
        raise ValueError("the credentials of BRAIN_DICOMWEB_URL are still a placeholder")
    if token is not None and not _TOKEN.fullmatch(token):
        raise ValueError(
            "BRAIN_DICOMWEB_TOKEN may hold printable ASCII characters alone, no spaces"
        )
    if password is not None and _CONTROL.search(password):
        raise ValueError("BRAIN_DICOMWEB_PASSWORD must not hold line breaks or control characters")
    user = settings.dicomweb_user
    if user is not None and (":" in user or _CONTROL.search(user)):
        raise ValueError(
            "BRAIN_DICOMWEB_USER must not hold a colon, line breaks or control characters (RFC 7617)"
        )
    url = settings.dicomweb_url
    if url is None and any(secret is not None for secret in secrets):
        raise ValueError(
            "there are credentials of a destination, BRAIN_DICOMWEB_TOKEN or BRAIN_DICOMWEB_USER and "
            "its password, but no BRAIN_DICOMWEB_URL"
        )
    if url is not None and (url.username or url.password):
        raise ValueError("credentials belong into BRAIN_DICOMWEB_USER and BRAIN_DICOMWEB_PASSWORD")


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"
