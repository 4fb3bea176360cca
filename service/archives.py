"""Zip files to the files in them: bounded, in memory, and without a path ever being used."""

import asyncio
import io
import stat
import zipfile
from collections.abc import Sequence
from typing import Final, Self

from service.buffers import Claim
from service.errors import (
    DamagedZip,
    EmptyZip,
    EncryptedZip,
    Failure,
    NestedZip,
    ServiceError,
    TooManyFiles,
    UnsupportedZip,
    ZipTooLarge,
)
from service.jobs import Upload

MAX_RATIO: Final = 100
"""How many times its own size an archive may unpack to; DICOM and JPEG come to less than ten."""

MAX_NAME: Final = 1024
"""Characters in the path of a file in an archive. Answers repeat it."""

MAX_ENTRY: Final = 1024
"""Bytes of an entry in an archive's directory, on average; some hundred are usual."""

FREE_BYTES: Final = 2**20
"""An archive that unpacks to less may have any ratio: a few blank slices are nothing to fear."""

_SIGNATURES: Final = (b"PK\x03\x04", b"PK\x05\x06")
"""Of a local file header, and of the end of an archive with no file (APPNOTE 6.3.10, 4.3)."""

_CENTRAL_HEADER: Final = b"PK\x01\x02"
_METHODS: Final = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED: Final = 0x1 | 0x40
"""Bits 0 and 6 of the general purpose flag (APPNOTE 6.3.10, 4.4.4)."""

_IGNORED: Final = {"dicomdir", "version", "lockfile", "thumbs.db", "desktop.ini", "icon\r"}
"""Files that media and operating systems add of their own accord; no client means them."""


def is_ignored(name: str) -> bool:
    """Whether no client means a file, by its name without folders: one of these, or hidden."""
    return name.startswith(".") or name.lower() in _IGNORED


def is_zip(data: bytes) -> bool:
    """Whether a file is a zip archive, by its first bytes."""
    return data[:4] in _SIGNATURES


class _Stream(io.BytesIO):
    """An archive's bytes. Of its directory, zipfile makes two or three times as much memory.

    Attributes:
        most: bytes that may be read at once: the directory is, wherever it lies. None for any number.
    """

    most: int | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any stream.

        Raises:
            ZipTooLarge: it is too much.
        """
        if self.most is not None and size is not None and size > self.most:
            raise ZipTooLarge(f"the directory of the zip file has more than {self.most} bytes")
        return super().read(size)


class Archive:
    """An archive whose directory has been checked, and whose files are still packed.

    Attributes:
        size: bytes that its files unpack to; they cannot unpack to more.
    """

    def __init__(
        self, name: str | None, archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]
    ) -> None:
        self.size = sum(member.file_size for member in members)
        self._name = name
        self._archive = archive
        self._members = members

    def __len__(self) -> int:
        return len(self._members)

    @classmethod
    def open(cls, upload: Upload, max_files: int, max_bytes: int) -> Self:
        """Reads an archive's directory.

        Args:
            upload: the archive.
            max_files: files that it may hold.
            max_bytes: what they may unpack to.

        Raises:
            TooManyFiles, ZipTooLarge, EncryptedZip, UnsupportedZip, EmptyZip, DamagedZip.
        """
        # Each entry costs a thousand bytes of memory, so they are counted before they are parsed.
        max_entries = 2 * max_files + 100
        if upload.data.count(_CENTRAL_HEADER) > max_entries:
            raise TooManyFiles.of("the zip file", max_files)
        stream = _Stream(upload.data)
        stream.most = MAX_ENTRY * max_entries
        try:
            archive = zipfile.ZipFile(stream)
        except ZipTooLarge:
            raise
        except Exception:  # noqa: BLE001 - zipfile raises nearly anything, depending on the damage
            raise DamagedZip("the zip file is damaged") from None
        stream.most = None
        members = [member for member in archive.infolist() if _is_wanted(member)]
        if len(members) > max_files:
            raise TooManyFiles.of("the zip file", max_files)
        if not members:
            raise EmptyZip("the zip file holds no files")
        if any(len(member.filename) > MAX_NAME for member in members):
            raise DamagedZip(
                f"a file in the zip file has a name of more than {MAX_NAME} characters"
            )
        if any(member.flag_bits & _ENCRYPTED for member in members):
            raise EncryptedZip("the zip file is encrypted")
        if any(member.compress_type not in _METHODS for member in members):
            raise UnsupportedZip("the zip file is packed with another method than deflate")
        if sum(member.compress_size for member in members) > len(upload.data):
            raise DamagedZip("the files in the zip file overlap")
        opened = cls(upload.name, archive, members)
        if opened.size > max_bytes:
            raise ZipTooLarge(f"the zip file unpacks to more than {max_bytes} bytes")
        if opened.size > max(FREE_BYTES, MAX_RATIO * len(upload.data)):
            raise ZipTooLarge(f"the zip file unpacks to more than {MAX_RATIO} times its size")
        return opened

    def read(self) -> list[Upload]:
        """Unpacks the files, in the order of the directory; a damaged one has its failure."""
        return [self._read(member) for member in self._members]

    def _read(self, member: zipfile.ZipInfo) -> Upload:
        name = member.filename if self._name is None else f"{self._name}/{member.filename}"
        failure: Failure
        try:
            with self._archive.open(member) as file:
                # Without a size it would inflate up to a gigabyte, and only then cut it to what is
                # stated. One byte more, as of none the checksum would not be looked at.
                data = file.read(member.file_size + 1)
        except Exception:  # noqa: BLE001
            failure = DamagedZip("the file is damaged in its zip file")
            return Upload(name, b"", failure, archived=True)
        if is_zip(data):
            failure = NestedZip("a zip file in a zip file is not opened")
            return Upload(name, b"", failure, archived=True)
        return Upload(name, data, archived=True)


def _is_wanted(member: zipfile.ZipInfo) -> bool:
    if stat.S_ISLNK(member.external_attr >> 16):
        return False
    # Windows PowerShell 5.1 writes the backslash, with which zipfile knows no folder.
    *folders, name = member.filename.replace("\\", "/").split("/")
    return bool(name) and "__MACOSX" not in folders and not is_ignored(name)


async def unpacked(
    uploads: Sequence[Upload], max_files: int, max_bytes: int, claim: Claim
) -> list[Upload]:
    """The files of a request, those of an archive in its place.

    Args:
        uploads: as they were sent.
        max_files: files of the request, those in archives and those beside them.
        max_bytes: what all its archives may unpack to.
        claim: of the request's memory.

    Returns:
        At least one file; an archive that cannot be unpacked is one with its failure.

    Raises:
        QueueFull: there is no room for what comes out.
    """
    files: list[Upload] = []
    for number, upload in enumerate(uploads):
        if not is_zip(upload.data):
            files.append(upload)
            continue
        room = max_files - len(files) - (len(uploads) - number - 1)
        try:
            archive = await asyncio.to_thread(Archive.open, upload, room, max_bytes)
        except ServiceError as failure:
            files.append(Upload(upload.name, b"", failure))
            continue
        claim.add(archive.size)
        max_bytes -= archive.size
        files.extend(await asyncio.to_thread(archive.read))
    return files
