"""Several objects as one body: ``multipart/related`` (DICOM PS3.18 2024e, 8.6.1.2; RFC 2387)."""

import io
import os
from collections.abc import Iterable
from typing import Final, NamedTuple

PART: Final = b"Content-Type: application/dicom\r\n\r\n"


class Body(NamedTuple):
    """A body and its media type."""

    content: bytes
    media_type: str


def pack(files: Iterable[bytes]) -> Body:
    """DICOM files, one part each."""
    # 128 random bits do not occur in an object.
    boundary = os.urandom(16).hex()
    body = io.BytesIO()
    for file in files:
        body.write(f"--{boundary}\r\n".encode() + PART + file + b"\r\n")
    body.write(f"--{boundary}--\r\n".encode())
    media_type = f'multipart/related; type="application/dicom"; boundary={boundary}'
    return Body(body.getvalue(), media_type)
