"""From the slices of a series to the objects that go back; it blocks, so it belongs in a thread."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from time import monotonic
from typing import Any, Final

from service.dicom.answer import ResultWriter
from service.dicom.findings import ModelIdentity
from service.dicom.results import MadeObject
from service.dicom.series import sort_into_series
from service.engine import Engine
from service.jobs import Job, Upload

MAGIC_BYTES: Final = 132
"""Of a file whose pixels are not needed at present: they say that it is DICOM (PS3.10 2024e, 7.1)."""

PATIENCE_SECONDS: Final = 120.0
"""For the objects of a series; 1000 slices take a few seconds."""


def lighten(job: Job) -> None:
    """Lets go of the file and the pixels of a slice that has been predicted."""
    job.upload = Upload(None, job.upload.data[:MAGIC_BYTES], digest=job.upload.digest)
    job.source = None
    job.pixels = None


def model_of(engine: Engine) -> ModelIdentity:
    """A version as it operates, without what a request may change of that."""
    return ModelIdentity.of(engine.stored, engine.rules)


def identity(engine: Engine) -> str:
    """What decides the result of given images: the version, and where it operates."""
    model = model_of(engine)
    return sha256("\n".join((model.label, *model.parameters)).encode()).hexdigest()


def make(
    jobs: Sequence[Job],
    entries: Sequence[Mapping[str, Any]],
    engine: Engine,
    read: Callable[[bytes], bytes],
    writer: ResultWriter,
) -> list[MadeObject]:
    """The objects of a series' result.

    Args:
        jobs: its slices, at least one of which was predicted; their headers were kept, and the digests
            of their files are known.
        entries: what /predict answers for each of them.
        engine: the version that predicted them.
        read: gives a file by its digest.
        writer: makes the objects.

    Raises:
        DecoderUnavailable: there is no process that makes them now.
        ServiceError: they cannot be made; an unknown error's place is in the log, and not its text.
    """
    objects: list[MadeObject] = []
    for series in sort_into_series(jobs, entries, engine.rules):
        leading = series.jobs[series.findings.most_suspicious]
        leading.upload = Upload(None, read(bytes.fromhex(series.findings.leading.digest)))
        objects += writer.make(series, model_of(engine), monotonic() + PATIENCE_SECONDS)
    return objects
