"""Thousands of damaged files, the same ones each time: only a DecodeError ever leaves the decoder."""

import io
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import EnhancedMRImageStorage, JPEGBaseline8Bit

from contract.decoding import decode
from contract.errors import DecodeError
from contract.policy import Policy
from contract.preprocessing import Slice, preprocess
from tests.contract.samples import (
    LOSSY,
    OBJECTS,
    SYNTAXES,
    encode,
    extended,
    grey_slice,
    mr_object,
    write,
)
from tests.support.encoding import compress

MUTATIONS = 400
STREAMS = 200
"""Mutations of a compressed stream alone, each of which costs a process."""

SANDBOXED = ["jpeg-lossless-sv1", "jpeg-ls", "jpeg-ls-near", "jpeg2000", "jpeg-extended"]
"""Those whose decoders run in a process of their own; GDCM writes the two lossless JPEGs alike."""

MAX_PIXELS = 1_000_000
GREY = grey_slice(48, 40)


def classic(name: str) -> bytes:
    attributes = {
        "WindowCenter": 128,
        "WindowWidth": 256,
        "RescaleSlope": 1,
        "PixelPaddingValue": 0,
    }
    attributes |= {"RescaleIntercept": 0}
    spacing = {"PixelSpacing": [0.9, 1.1], "PixelAspectRatio": [1, 1]}
    return mr_object(GREY, SYNTAXES[name], attributes=attributes | spacing)


def lossy(name: str) -> bytes:
    return mr_object(GREY * np.uint16(16), LOSSY[name], bits_stored=12)


def sandboxed(name: str) -> tuple[bytes, bytes]:
    """An object and the stream in it."""
    values, syntax = GREY * np.uint16(16), (SYNTAXES | LOSSY)[name]
    stream = compress(values, syntax, 12)
    attributes = {"PixelData": encapsulate([stream])}
    return mr_object(values, syntax, bits_stored=12, attributes=attributes), stream


def enhanced() -> bytes:
    groups, voi, table = Dataset(), Dataset(), Dataset()
    voi.WindowCenter, voi.WindowWidth = 128, 256
    groups.FrameVOILUTSequence = [voi]
    table.add_new("LUTDescriptor", "US", [256, 0, 16])
    table.add_new("LUTData", "US", list(range(256)))
    attributes = {
        "SOPClassUID": EnhancedMRImageStorage,
        "NumberOfFrames": 1,
        "SharedFunctionalGroupsSequence": [groups],
        "ModalityLUTSequence": [table],
        "VOILUTSequence": [table],
    }
    return mr_object(GREY, attributes=attributes)


def real_header() -> bytes:
    """A real object with its private attributes and all, and a small image."""
    dataset = dcmread(OBJECTS[-1])
    dataset.Rows, dataset.Columns = GREY.shape
    dataset.PixelData = GREY.astype("<u2").tobytes()
    return write(dataset, SYNTAXES["explicit"])


SEEDS: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: encode(GREY, "JPEG", exif=camera()),
    "jpeg-colour": lambda: encode(Image.fromarray(GREY).convert("RGB"), "JPEG", progressive=True),
    "png": lambda: encode(GREY, "PNG", exif=camera()),
    "png-palette": lambda: encode(Image.fromarray(GREY).convert("P"), "PNG", transparency=3),
    "png-deep": lambda: encode(GREY.astype(np.uint16) * 16, "PNG"),
    "png-animated": lambda: encode(
        Image.fromarray(GREY), "PNG", save_all=True, append_images=[Image.fromarray(255 - GREY)]
    ),
    **{f"dicom-{name}": lambda name=name: classic(name) for name in SYNTAXES},  # type: ignore[misc]
    **{f"dicom-{name}": lambda name=name: lossy(name) for name in LOSSY},  # type: ignore[misc]
    "dicom-jpeg": lambda: mr_object(GREY, JPEGBaseline8Bit),
    "dicom-colour": lambda: mr_object(np.stack([GREY] * 3, axis=-1)),
    "dicom-enhanced": enhanced,
    "dicom-siemens": real_header,
}


def camera() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a camera"
    return exif


def mutations(data: bytes, random: np.random.Generator) -> Iterator[bytes]:
    """Damage of every kind; half of it in the first 700 bytes, where headers are."""
    for _ in range(MUTATIONS):
        damaged = bytearray(data)
        reach = len(data) if random.random() < 0.5 else min(len(data), 700)
        for _ in range(random.integers(1, 6)):
            start = int(random.integers(0, reach))
            length = int(random.integers(1, 9))
            kind = random.integers(0, 7)
            if kind == 0:
                damaged[start : start + 1] = random.bytes(1)
            elif kind == 1:
                damaged[start : start + 1] = bytes([1 << int(random.integers(0, 8))])
            elif kind == 2:
                damaged[start : start + length] = random.bytes(length)
            elif kind == 3:
                del damaged[start : start + length]
            elif kind == 4:
                damaged[start:start] = random.bytes(length)
            elif kind == 5:
                damaged[start : start + length] = [b"\0", b"\xff"][length % 2] * length
            else:
                other = int(random.integers(0, len(data)))
                damaged[start : start + 8 * length] = data[other : other + 8 * length]
        if random.random() < 0.1:
            del damaged[int(random.integers(0, len(damaged))) :]
        yield bytes(damaged)


def with_stream(data: bytes, stream: bytes, other: bytes) -> bytes:
    """An object of one compressed frame with another stream in it."""
    old, new = encapsulate([stream]), encapsulate([other or b"\0"])
    assert data.count(old) == 1
    return data.replace(old, new)


def outcome(data: bytes) -> str:
    """``slice``, or the error's code; anything else is raised."""
    try:
        result = decode(data, policy=Policy(max_pixels=MAX_PIXELS))
    except DecodeError as error:
        return error.code
    assert isinstance(result, Slice)
    assert result.pixels.ndim == 2
    assert 0 < result.pixels.size <= MAX_PIXELS
    assert preprocess(result.pixels).shape == (224, 224)
    return "slice"


@pytest.mark.parametrize("name", SEEDS)
def test_only_decode_errors_leave(name: str) -> None:
    data = SEEDS[name]()
    assert outcome(data) == "slice"
    random = np.random.default_rng(list(name.encode()))
    seen = Counter(outcome(damaged) for damaged in mutations(data, random))
    assert sum(seen.values()) == MUTATIONS
    assert seen["slice"] < MUTATIONS, "some of it must have been damage"
    assert len(seen) >= 3, f"and of several kinds: {dict(seen)}"


@pytest.mark.parametrize("name", SANDBOXED)
def test_damage_of_a_stream_alone(name: str) -> None:
    """Headers stay as they are, so that every mutation gets as far as the decoder."""
    whole, stream = extended() if name == "jpeg-extended" else sandboxed(name)
    random = np.random.default_rng(list(name.encode()))
    seen = Counter(
        outcome(with_stream(whole, stream, damaged))
        for damaged in islice(mutations(stream, random), STREAMS)
    )
    assert sum(seen.values()) == STREAMS
    assert seen["undecodable_image"] > STREAMS / 20
    assert seen["decoder_unavailable"] == seen["decoder_timed_out"] == 0
    if name == "jpeg-extended":
        assert seen["decoder_crashed"] > 0, "GDCM ends its process on some of them"
    assert outcome(whole) == "slice"


def test_noise_after_every_signature() -> None:
    random = np.random.default_rng(1)
    for signature in (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", bytes(128) + b"DICM"):
        for _ in range(200):
            assert outcome(signature + random.bytes(int(random.integers(0, 2000)))) != "slice"


def test_one_file_after_another() -> None:
    """The start of each file with the end of each other one."""
    files = [make() for make in SEEDS.values()]
    for first in files:
        for second in files:
            outcome(first[: len(first) // 2] + second[len(second) // 2 :])
            outcome(first[:200] + second[200:])
            outcome(first[:140] + io.BytesIO(second).read())
