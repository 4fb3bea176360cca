"""Settings of the way from a PACS and back, and of the DICOM objects that are made."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, HttpUrl, SecretStr
from pydantic_settings import BaseSettings

from service.dicom.uids import MAX_ROOT_LENGTH, UUID_ROOT, is_root


def _uid_root(root: str) -> str:
    if not is_root(root):
        raise ValueError("not a UID root")
    return root


def _base_address(url: HttpUrl) -> HttpUrl:
    # In what precedes them, these signs would be escaped.
    if {"?", "#"} & set(str(url)):
        raise ValueError("an address without a query or fragment, as /studies is added to its end")
    return url


class PacsSettings(BaseSettings):
    """What stands between the service and a PACS; a part of :class:`service.settings.Settings`."""

    dicom_uid_root: Annotated[str, AfterValidator(_uid_root)] = Field(
        UUID_ROOT,
        description="Results as DICOM objects get UIDs under this root, of at most "
        f"{MAX_ROOT_LENGTH} characters. Default: UUIDs, which need no root of one's own.",
    )

    dicomweb_url: Annotated[HttpUrl, AfterValidator(_base_address)] | None = Field(
        None,
        description="DICOMweb service of the PACS that gets the results, as "
        "https://pacs.example/dicom-web. Without it POST /dicom-web/studies answers 501.",
    )
    dicomweb_user: str | None = Field(None, description="Its user, for basic authentication.")
    dicomweb_password: SecretStr | None = Field(None, description="That user's password.")
    dicomweb_token: SecretStr | None = Field(
        None, description="A bearer token for it, instead of user and password."
    )
    dicomweb_password_file: Path | None = Field(
        None, description="A file with that password, in one line, instead of it."
    )
    dicomweb_token_file: Path | None = Field(
        None, description="A file with that token, in one line, instead of it."
    )
    dicomweb_ca_file: Path | None = Field(
        None,
        description="Certificates (PEM) that its TLS certificate is verified with. Default: those "
        "of the system.",
    )
    dicomweb_timeout_ms: float = Field(
        30_000,
        gt=0,
        description="How long it may be silent, or take for 64 KiB, before a delivery has failed. A "
        "delivery also fails if the complete answer has not come within twice this time after the last "
        "byte was sent.",
    )
    dicomweb_retry_ms: float = Field(
        1_000,
        gt=0,
        description="Wait before a failed delivery is tried again; doubled each time, and never "
        "given up but for what the PACS refuses for good.",
    )
    dicomweb_retry_max_ms: float = Field(
        300_000, gt=0, le=86_400_000, description="The longest such wait."
    )
    spool: Path = Field(
        Path("spool"),
        description="Folder of what was accepted from and not yet delivered to the PACS, relative to "
        "the working directory. It holds patients' images; only this user can read it.",
    )
    spool_max_bytes: int = Field(
        4 * 1024**3,
        ge=1024**2,
        description="Room that it may take; beyond it 503 with Retry-After. Instances get three "
        "quarters of it, in which BRAIN_STOW_MAX_BODY_BYTES must fit.",
    )
    series_quiet_ms: float = Field(
        5_000,
        gt=0,
        description="A series is analysed when no instance of it has come for so long.",
    )
    series_keep_seconds: float = Field(
        900,
        ge=0,
        description="How long its instances are kept after that, so that slices that come late give "
        "a result of the whole series.",
    )
    stow_max_body_bytes: int = Field(
        1024**3, ge=1, description="Largest body of a STOW-RS request; beyond it 413."
    )
    stow_max_instance_bytes: int = Field(
        256 * 1024**2, ge=1, description="Largest instance in it; a larger one is refused."
    )
    stow_max_instances: int = Field(5_000, ge=1, description="Most instances in it; beyond it 413.")
