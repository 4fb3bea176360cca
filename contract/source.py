"""An opened file: one slice or many, decoded one at a time when they are asked for."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from contract.preprocessing import DicomReference, Slice

if TYPE_CHECKING:  # pydicom costs a quarter of a second, which a JPEG client need not wait for
    from pydicom import Dataset


class Source(Protocol):
    """What :func:`contract.decoding.open_source` gives; any number of threads may use it."""

    @property
    def frames(self) -> int:
        """Number of slices, at least 1."""
        ...

    @property
    def header(self) -> "Dataset | None":
        """The attributes of a DICOM object that were asked for.

        The patient's are among them, and all are as the sender wrote them: any may be missing or
        malformed.
        """
        ...

    @property
    def isolated(self) -> bool:
        """Whether a process of its own decompresses its slices."""
        ...

    @property
    def held_bytes(self) -> int:
        """Bytes of a deflated object that stay for its further slices."""
        ...

    @property
    def study_instance_uid(self) -> str | None:
        """Of a DICOM object (0020,000D); None if it is missing, malformed or damaged."""
        ...

    def reference(self, frame: int) -> DicomReference | None:
        """Where a frame (from 1) belongs; None unless it is DICOM."""
        ...

    def slice(self, frame: int) -> Slice:
        """Decodes a frame (from 1).

        Raises:
            DecodeError: one of its kinds; no other exception leaves this function. The other frames
                may be readable nevertheless.
        """
        ...


def slices(source: Source) -> Iterator[Slice]:
    """Decodes all slices, one after the other.

    Raises:
        DecodeError: at the first that cannot be decoded.
    """
    for frame in range(1, source.frames + 1):
        yield source.slice(frame)
