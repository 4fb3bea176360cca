"""Settings, read once from the environment: ``BRAIN_PORT`` is :attr:`Settings.port`, and so on."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from contract.policy import (
    DEFAULT_DECODER_SECONDS,
    DEFAULT_MAX_FRAMES,
    DEFAULT_MAX_PIXELS,
    Checks,
    Policy,
)
from service.choices import Device, LogLevel, RuntimeChoice
from service.consistency import check
from service.cores import available_cores
from service.credentials import with_files_read
from service.pacs.settings import PacsSettings
from service.passing import passes
from service.proxies import Networks, networks

PREFIX: Final = "BRAIN_"

_HOST_NAME: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")

MAX_DEFAULT_WORKERS: Final = 8
"""So many answer more pictures than the event loop, which is on one core, can take and give."""


class SettingsError(Exception):
    """The environment does not make valid settings; the message lists what is wrong."""


class PassingFault(SettingsError):
    """What a setting names cannot be used now: another start with the same settings may do."""


def unreadable(text: str, error: OSError) -> SettingsError:
    """What to raise of a file that a setting names and that cannot be read."""
    fault = PassingFault if passes(error) else SettingsError
    return fault(f"{text} ({error.strerror})")


def _host_names(listed: str | frozenset[str]) -> frozenset[str]:
    if isinstance(listed, frozenset):
        return listed
    names = [name.strip().lower() for name in listed.split(",")]
    if not all(map(_HOST_NAME.fullmatch, names)):
        raise ValueError("host names, without a port and with commas between them")
    return frozenset(names)


def _proxies(listed: str | Networks) -> Networks:
    return networks(listed) if isinstance(listed, str) else listed


class ServingSettings(BaseSettings):
    """What listens, which version predicts, what it decides, and what a request may take."""

    host: str = Field(
        "127.0.0.1",
        description="Address to listen on. Any but a loopback one needs BRAIN_API_KEYS_FILE or "
        "BRAIN_ALLOW_ANONYMOUS.",
    )
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    log_level: LogLevel = Field(LogLevel.INFO, description="Least severe level that is logged.")

    api_keys_file: Path | None = Field(
        None,
        description="API keys, hashed; without a valid one 401, without its role 403. Read at the "
        "start. Default: no keys, and whoever reaches the service may call all of it.",
    )
    allow_anonymous: bool = Field(
        False, description="Allows another than a loopback address without API keys."
    )
    allowed_hosts: Annotated[frozenset[str], NoDecode, BeforeValidator(_host_names)] = Field(
        frozenset(),
        description="Names with a dot that the service may be called by without API keys, with commas "
        "between them (`mri.example.org`); with another one in `Host` 403, but for what is open with "
        "keys as well: health, metrics, the list of models, page and documentation. IP addresses, "
        "names without a dot and those that end in `.localhost` or `.internal` are always allowed.",
    )

    rate_per_second: float = Field(
        0.0,
        ge=0,
        description="Requests a second for each API key, or for each address without a valid one; "
        "beyond it 429 with Retry-After. 0 does not limit them. Here and below, all addresses of an "
        "IPv6 network (/64) are one, but for those of a site's own (`fd00::/8`, `fe80::/10`).",
    )
    trusted_proxies: Annotated[Networks, NoDecode, BeforeValidator(_proxies)] = Field(
        frozenset(),
        description="Addresses or networks of reverse proxies, with commas between them "
        "(`127.0.0.1, 10.20.0.0/16`). What one of them sends counts for the right-most address in "
        "`X-Forwarded-For` that is none of theirs. Default: none, and the header is ignored.",
    )
    max_connections: int = Field(
        800,
        ge=1,
        description="Connections at a time; beyond it an idle one is closed to make room, else 503 "
        "with Retry-After. Where one address has more than half, others get a sixteenth more.",
    )
    header_timeout_ms: float = Field(
        10_000, gt=0, description="Time in which a request's headers have to arrive; beyond it 408."
    )

    model_store: Path = Field(
        Path("model_store"),
        description="Folder of model versions, relative to the working directory. Without a usable one "
        "the service starts, and /predict and /health answer 503 with the reason.",
    )
    model: str = Field("brain-tumor", description="Model to serve; 503 if the store lacks it.")
    model_version: str = Field("latest", description="A version number, an alias or 'latest'.")
    shadow_version: str | None = Field(
        None,
        description="Another version, named as BRAIN_MODEL_VERSION is, that predicts the same slices "
        "when there is time to spare. Its answers only go into the metrics.",
    )
    watch: bool = Field(
        False,
        description="Follows the store: when `latest`, or the alias in BRAIN_MODEL_VERSION, comes to "
        "stand for another version, this is verified, warmed up and swapped in; where that fails, the "
        "old one goes on.",
    )
    watch_interval_ms: float = Field(
        5_000,
        ge=10,
        description="How often it looks. A new version is loaded once two looks in a row found its "
        "files unchanged.",
    )
    runtime: RuntimeChoice = Field(
        RuntimeChoice.AUTO,
        description="'tensorflow' uses a GPU if there is one; 503 if it is not installed.",
    )
    device: Device = Field(
        Device.AUTO,
        description="'gpu' is TensorFlow on a GPU, and 503 with the reason where there is none or the "
        "model does not run on it; 'cpu' leaves a GPU alone.",
    )
    xla: bool = Field(
        False,
        description="Compiles the model with XLA for each batch size under TensorFlow. On an NVIDIA "
        "H200 that takes half a minute for each at every start, and a batch then takes a third less.",
    )
    mixed_precision: bool = Field(
        False,
        description="Under TensorFlow most of the model computes in float16 on a GPU, in bfloat16 on "
        "a CPU; probabilities change a little. No gain with the shipped model on an NVIDIA H200, and a "
        "start 40 s longer.",
    )
    interpreters: int = Field(
        default_factory=available_cores,
        ge=1,
        le=256,
        description="Single-threaded LiteRT interpreters, each in a thread that takes a slice from its "
        "file to its answer; from two on, a slice that is alone is predicted on all these cores, at "
        "most four. Default: all cores.",
    )
    workers: int | None = Field(
        None,
        ge=0,
        le=64,
        description="Processes for JPEG and PNG pictures, and for DICOM objects of one slice that GDCM "
        "need not decompress; 45 MB each. Used only while several files are in the service at once; a "
        "single file is handled by a thread. Beside TensorFlow on a GPU they decode, and answer what "
        "the service predicts. 0: threads do all the work. None run beside a shadow version, or "
        "TensorFlow on a CPU. Default: as many as interpreters, at most eight; 0 for one.",
    )

    tumor_threshold: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="`tumor_probability` from which the decision is `tumor`, unless it is `refer`. "
        "Alone it only widens the band that is referred, and makes no slice in it a tumour: to have "
        "`tumor` from 0.4 on, set BRAIN_REFER_LOW and BRAIN_REFER_HIGH to 0.4 as well. Default: the "
        "version's, as of the settings that follow.",
    )
    refer_low: float | None = Field(
        None,
        ge=0,
        le=1,
        description="A `tumor_probability` from here up to, but without, BRAIN_REFER_HIGH is "
        "decided `refer`. The two come together, in this order; equal ones refer nothing.",
    )
    refer_high: float | None = Field(None, ge=0, le=1, description="See BRAIN_REFER_LOW.")
    temperature: float | None = Field(
        None,
        ge=0.05,
        le=20,
        description="Logits are divided by it, so that a higher one makes probabilities less sure. The "
        "thresholds were chosen with the version's own, and belong to it.",
    )
    prediction_set_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Probability from which a class is in `prediction_set`; a lower one makes larger "
        "sets, which cover the true class more often.",
    )
    ood_threshold: float | None = Field(
        None,
        gt=0,
        description="Largest distance from the training data that is `in_distribution`; beyond it "
        "the decision is `refer`.",
    )
    region_threshold: float | None = Field(
        None, gt=0, le=1, description="Tumour probability from which a pixel may be in a `region`."
    )
    region_min_cells: int | None = Field(
        None, ge=1, description="Connected cells of the model's mask that a `region` needs."
    )
    region_min_tumor_probability: float | None = Field(
        None, ge=0, le=1, description="`tumor_probability` below which there is no `region`."
    )

    max_batch_size: int = Field(
        32,
        ge=1,
        le=1024,
        description="Most images that are predicted together under TensorFlow. LiteRT gains nothing by "
        "that, and takes them one by one.",
    )
    max_wait_ms: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="How long an incomplete batch waits for more images. A busy runtime collects "
        "them anyway; a few ms can help a GPU.",
    )
    batch_timeout_ms: float = Field(
        10_000,
        gt=0,
        description="A batch that takes longer hangs: its requests get 503, and the runtime is "
        "rebuilt.",
    )
    load_timeout_ms: float = Field(
        600_000,
        gt=0,
        description="A version that takes longer to be verified, loaded and warmed up is refused, and "
        "the one that serves goes on. With XLA a GPU needs minutes.",
    )
    queue_size: int = Field(
        64,
        ge=1,
        description="Slices that may be in the service at a time; beyond it 503 with Retry-After "
        "at once. One request has at most half of them in it, and feeds its others one by one.",
    )
    deadline_ms: float = Field(
        10_000,
        gt=0,
        description="Time from the last byte of a request to its answer; beyond it 504, and "
        "images not yet predicted never will be.",
    )
    body_timeout_ms: float = Field(
        30_000,
        gt=0,
        description="Time in which a body has to arrive, and a second more for each 64 KiB that have "
        "come; a body that takes longer, or sends nothing for that long, gets 400.",
    )

    max_body_bytes: int = Field(
        256 * 1024 * 1024,
        ge=1,
        description="Largest request body, and largest unpacked size of its zip files; beyond it 413.",
    )
    max_buffered_bytes: int = Field(
        512 * 1024 * 1024,
        ge=1,
        description="Bytes of request bodies, and of what zip files and deflated DICOM objects unpack "
        "to, that are in memory at a time; beyond it 503 with Retry-After. At least twice "
        "BRAIN_MAX_BODY_BYTES. A key, or address without one, keeps no more than half while others "
        "need room, and for their small bodies there is a sixteenth more.",
    )
    max_files: int = Field(
        1024,
        ge=1,
        description="Most files in one request, those in zip files counted; beyond it 413.",
    )
    max_frames: int = Field(
        DEFAULT_MAX_FRAMES,
        ge=1,
        description="Most slices in one request, each frame of a DICOM object counted; the object "
        "beyond it gets 413.",
    )
    max_pixels: int = Field(
        DEFAULT_MAX_PIXELS, ge=1, description="Most pixels in one slice; beyond it 413."
    )
    dicom_checks: Checks = Field(
        Checks.STRICT,
        description="What a DICOM object must say of itself, else 422. 'strict': modality and SOP "
        "class of an MR image, of a person, no localizer, no phases and no maps, and if it states a "
        "body part, a head. 'lenient': modality or SOP class MR. 'off': nothing.",
    )
    decoder_timeout_ms: float = Field(
        DEFAULT_DECODER_SECONDS * 1000,
        gt=0,
        description="Time for one slice in a decoder that runs in a process of its own (lossless and "
        "12-bit JPEG, JPEG-LS, JPEG 2000); beyond it the slice gets 422.",
    )
    decode_threads: int = Field(
        default_factory=available_cores,
        ge=1,
        le=256,
        description="Threads that decode images under TensorFlow; under LiteRT the interpreters' own "
        "threads do. Default: all cores.",
    )


class Settings(PacsSettings, ServingSettings):
    """Everything that can be set; immutable, and unknown names are refused.

    docs/settings.md lists them in pydantic's order: those of the last base first, its own last.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        env_ignore_empty=True,
        allow_inf_nan=False,
        # It may be a secret.
        hide_input_in_errors=True,
        protected_namespaces=(),
    )

    audit_log: Path | None = Field(
        None,
        description="File of the audit log: who had which image looked at (a hash of its UID, or of "
        "the file), when, by which model, and what came of it. Default: none.",
    )
    audit_max_bytes: int = Field(
        64 * 1024**2, ge=1024, description="Size at which a new file is begun."
    )
    audit_files: int = Field(10, ge=0, description="Older files that are kept.")
    audit_fsync: bool = Field(
        True, description="Whether each write waits for the disk; nobody else does."
    )

    drain_notice_ms: float = Field(
        500,
        ge=0,
        description="After SIGTERM the service listens this much longer: /health/ready and new "
        "predictions answer 503, so that a load balancer looks elsewhere.",
    )
    drain_seconds: int = Field(
        20,
        ge=1,
        description="After the notice, time to finish what was accepted; what takes longer gets 503. "
        "If at least BRAIN_DEADLINE_MS, every prediction whose body had arrived is still answered; if "
        "less, the log warns at the start.",
    )

    @model_validator(mode="before")
    @classmethod
    def _secrets_are_read(cls, values: Any) -> Any:
        return with_files_read(values)

    @model_validator(mode="after")
    def _agree_with_one_another(self) -> Self:
        check(self)
        return self

    @property
    def crew_size(self) -> int:
        """Processes that work on slices."""
        if self.shadow_version:
            # It compares outputs and pixels, which stay with the processes.
            return 0
        if self.workers is not None:
            return self.workers
        return min(self.interpreters, MAX_DEFAULT_WORKERS) if self.interpreters > 1 else 0

    @property
    def policy(self) -> Policy:
        """What is accepted of a file."""
        return Policy(
            max_pixels=self.max_pixels,
            max_frames=self.max_frames,
            checks=self.dicom_checks,
            decoder_seconds=self.decoder_timeout_ms / 1000,
        )

    @classmethod
    def from_environment(cls) -> Self:
        """The settings of this process.

        Raises:
            SettingsError: a value is invalid, or a variable with the prefix names no setting.
            PassingFault: the disk of a file with a secret fails.
        """
        known = {f"{PREFIX}{name}".upper() for name in cls.model_fields}
        unknown = sorted(
            name
            for name in os.environ
            if name.upper().startswith(PREFIX) and name.upper() not in known
        )
        if unknown:
            raise SettingsError(f"no such setting: {', '.join(unknown)}")
        try:
            return cls()
        except OSError as error:
            raise PassingFault(f"cannot read {error.filename} ({error.strerror})") from None
        except ValidationError as error:
            lines = (
                ": ".join([*(f"{PREFIX}{name}".upper() for name in item["loc"]), item["msg"]])
                for item in error.errors()
            )
            # What a check of this project says comes after the name of Python's class.
            raise SettingsError("; ".join(lines).replace("Value error, ", "")) from None
