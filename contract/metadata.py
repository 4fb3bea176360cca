"""What a JPEG or PNG file holds besides its pixels, measured before Pillow reads it.

Pillow takes it segment by segment, or chunk by chunk, and in part in a time that grows with the square
of their number: a file of ten megabytes kept a core for a minute.
"""

import re
from typing import Final

SMALL_BYTES: Final = 64 * 2**10
"""Of a whole file: nothing in it takes Pillow longer than a tenth of a second."""

MAX_SEGMENTS: Final = 2000
"""Of a JPEG before its first scan. An image needs about ten; those of a profile, of XMP or of a depth
map hold 64 kB each."""

MAX_METADATA_BYTES: Final = 16 * 2**20
"""Of all application segments and comments of a JPEG before its first scan, or all chunks of a PNG but
those of pixels. Photographs with a depth map have several MB, slices of scanners some kB."""

MAX_TABLE_BYTES: Final = 64 * 2**10
"""Of all other segments before the first scan, and of what lies between them. Every table that an image
can use fits into 4 kB."""

MAX_EXIF_SEGMENTS: Final = 64
"""It is one (CIPA DC-008-2019, 4.5.4). Pillow joins several, and copies all before for each."""

MAX_CHUNKS: Final = 1000
"""Of a PNG but those of pixels; files of many have some dozens."""

MAX_COMPRESSED_CHUNKS: Final = 100
"""Those among them that are decompressed, up to a MB each."""

MAX_PIXEL_CHUNKS: Final = 100_000
"""Of a PNG: 40 million pixels of 8 bytes in chunks of 8 kB, as libpng writes them, are 40,000."""

_MARKER: Final = re.compile(rb"\xff[^\x00\xff]")
_START_OF_SCAN: Final = 0xDA
_EXIF: Final = (0xE1, b"Exif\0\0")
_METADATA: Final = frozenset({*range(0xE0, 0xF0), 0xFE})
"""Application segments and comments (ITU-T T.81 (09/92), table B.1)."""

_BARE: Final = frozenset({0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)})
"""Markers behind which Pillow expects no length; below 0xC0 it refuses the file."""

_SIGNATURE_BYTES: Final = 8
_PIXEL_CHUNKS: Final = frozenset({b"IDAT", b"DDAT", b"fdAT", b"fcTL"})
"""Those of the frames of an animation among them."""

_COMPRESSED_CHUNKS: Final = frozenset({b"zTXt", b"iTXt", b"iCCP"})


def is_excessive_jpeg(stream: bytes) -> bool:
    """Whether what comes before the first scan is more than an image can need."""
    if len(stream) <= SMALL_BYTES:
        return False
    position, tables, metadata, exif = 2, 0, 0, 0
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.search(stream, position)
        if found is None:
            return tables + len(stream) - position > MAX_TABLE_BYTES
        # Pillow takes what is no segment byte by byte.
        tables += found.start() - position
        start, position = found.end(), found.end()
        marker = stream[start - 1]
        if marker not in _BARE:
            position += max(2, int.from_bytes(stream[start : start + 2]))
        size = position - start
        if marker in _METADATA:
            metadata += size
            exif += marker == _EXIF[0] and stream.startswith(_EXIF[1], start + 2)
        else:
            tables += size
        if max(tables - MAX_TABLE_BYTES, metadata - MAX_METADATA_BYTES) > 0:
            return True
        if exif > MAX_EXIF_SEGMENTS:
            return True
        if marker == _START_OF_SCAN or marker < 0xC0:
            return False
    return True


def is_excessive_png(data: bytes) -> bool:
    """Whether there are more chunks, or more of those that are no pixels, than an image can need."""
    if len(data) <= SMALL_BYTES:
        return False
    position, chunks, compressed, pixels, metadata = _SIGNATURE_BYTES, 0, 0, 0, 0
    while position + 8 <= len(data):
        kind = data[position + 4 : position + 8]
        if kind == b"IEND":
            return False
        size = int.from_bytes(data[position : position + 4])
        position += 12 + size
        if kind in _PIXEL_CHUNKS:
            pixels += 1
            if pixels > MAX_PIXEL_CHUNKS:
                return True
            continue
        chunks += 1
        compressed += kind in _COMPRESSED_CHUNKS
        # Of one that ends behind the file no more than the rest can be read.
        metadata += min(size, len(data))
        if chunks > MAX_CHUNKS or compressed > MAX_COMPRESSED_CHUNKS:
            return True
        if metadata > MAX_METADATA_BYTES:
            return True
    return False
