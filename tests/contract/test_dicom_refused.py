"""What is refused: other objects, damaged ones, and those that unpack to too much."""

import io
import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import DataElement, Dataset, dcmread
from pydicom.encaps import encapsulate, generate_frames, itemize_fragment
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from contract import dicom_size
from contract.codestream import (
    jpeg2000_header,
    jpeg2000_is_transformed,
    jpeg_header,
    jpeg_is_ycbcr,
)
from contract.decoding import decode, open_source
from contract.dicom_meta import inflate
from contract.dicom_pixels import MAX_RLE_BYTES
from contract.dicom_size import MAX_ELEMENTS, MAX_ITEMS, check_size
from contract.errors import (
    DecodeError,
    NoPixelData,
    NotMr,
    TooManyFrames,
    TooManyPixels,
    TruncatedImage,
    UndecodableImage,
    UnsupportedPixels,
    UnsupportedTransferSyntax,
)
from contract.policy import Policy
from contract.quiet import quieten
from tests.contract.rendering import decoded, difference
from tests.contract.samples import (
    OBJECTS,
    RANGE,
    SHIPPED,
    SYNTAXES,
    encode,
    grey_slice,
    mr_frames,
    mr_object,
    write,
)

GREY = grey_slice()


def in_items(pieces: Sequence[bytes]) -> bytes:
    """Fragments behind an empty offset table."""
    padded = (piece + bytes(len(piece) % 2) for piece in pieces)
    return b"".join(itemize_fragment(piece) for piece in (b"", *padded))


class TestRefused:
    @pytest.mark.parametrize("attributes", [{"PixelData": None}, {"PixelData": b""}], ids=str)
    def test_no_pixels(self, attributes: dict[str, Any]) -> None:
        with pytest.raises(NoPixelData):
            decoded(mr_object(GREY, attributes=attributes))

    @pytest.mark.parametrize(
        "attributes",
        [
            {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31},
            {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0},
            {"BitsStored": 9},
            {"BitsStored": 0},
            {"HighBit": 15},
            {"SamplesPerPixel": 2},
            {"SamplesPerPixel": 0},
        ],
        ids=str,
    )
    def test_pixels_of_another_kind(self, attributes: dict[str, Any]) -> None:
        with pytest.raises(UnsupportedPixels):
            decoded(mr_object(GREY, attributes=attributes))

    @pytest.mark.parametrize(
        "attributes",
        [
            {"Rows": 0},
            {"Columns": 0},
            {"Rows": None},
            {"BitsAllocated": None},
            {"PhotometricInterpretation": None},
            {"PixelRepresentation": None},
            {"NumberOfFrames": -1},
            {"Rows": [1, 2]},
        ],
        ids=str,
    )
    def test_a_size_that_cannot_be(self, attributes: dict[str, Any]) -> None:
        with pytest.raises(UndecodableImage):
            decoded(mr_object(GREY, attributes=attributes))

    @pytest.mark.parametrize(
        "uid",
        ["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.201", "1.2.3.4.5", "1.2.840.113619.5.2"],
    )
    def test_a_syntax_that_is_not_read(self, uid: str) -> None:
        data = mr_object(GREY)
        old = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0"
        assert old in data
        value = uid.encode() + b"\0" * (len(uid) % 2)
        new = b"\x02\x00\x10\x00UI" + len(value).to_bytes(2, "little") + value
        with pytest.raises((UnsupportedTransferSyntax, UndecodableImage, NotMr)) as caught:
            decoded(data.replace(old, new))
        if uid != "1.2.840.113619.5.2":
            assert isinstance(caught.value, UnsupportedTransferSyntax)

    @pytest.mark.parametrize("missing", [1, 100, GREY.size - 100])
    def test_fewer_values_than_pixels(self, missing: int) -> None:
        with pytest.raises(TruncatedImage):
            decoded(mr_object(GREY, attributes={"PixelData": GREY.tobytes()[missing:][:-1]}))

    @pytest.mark.parametrize("name", ["implicit", "explicit", "big-endian", "deflated"])
    @pytest.mark.parametrize(
        "stated",
        [
            {"NumberOfFrames": None},
            {"NumberOfFrames": 2},
            {"Rows": GREY.shape[0] * 2 // 3},
            {"Columns": GREY.shape[1] - 1},
            {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
        ],
        ids=str,
    )
    def test_more_values_than_pixels(self, stated: dict[str, Any], name: str) -> None:
        """A part of them would be taken for all."""
        frames = [GREY.astype(np.uint16)] * 3
        with pytest.raises(UndecodableImage, match="more pixels than it states"):
            open_source(mr_frames(frames, SYNTAXES[name], attributes=stated))

    @pytest.mark.parametrize("stated", [None, 2])
    @pytest.mark.parametrize("name", ["rle", "jpeg2000", "jpeg-lossless", "jpeg-ls"])
    def test_more_compressed_frames_than_stated(self, name: str, stated: int | None) -> None:
        attributes = {**RANGE, "NumberOfFrames": stated}
        with pytest.raises(UndecodableImage, match="more frames than it states"):
            open_source(mr_frames([GREY] * 3, SYNTAXES[name], attributes=attributes))

    @pytest.mark.parametrize(
        "ends", [(100,), (0,), (10**6,), (0, 100, 100)], ids=["halves", "before", "behind", "all"]
    )
    def test_an_rle_frame_in_fragments_is_one(self, ends: tuple[int, ...]) -> None:
        """It should not be, nor should an item be empty; some writers have both."""
        packed = dcmread(io.BytesIO(mr_object(GREY, RLELossless))).PixelData
        stream = next(generate_frames(packed, number_of_frames=1))
        pieces = [stream[start:end] for start, end in pairwise([0, *ends, None])]
        attributes = {**RANGE, "PixelData": in_items(pieces)}
        whole = decoded(mr_object(GREY, RLELossless, attributes=attributes))
        assert difference(whole.pixels, GREY) <= 1
        attributes["PixelData"] = in_items([*pieces, stream])
        with pytest.raises(UndecodableImage, match="more frames than it states"):
            decoded(mr_object(GREY, RLELossless, attributes=attributes))

    @pytest.mark.parametrize("cuts", [[], [40]], ids=["at once", "in two"])
    def test_a_codestream_behind_its_boxes_is_no_second_frame(self, cuts: list[int]) -> None:
        stream = encode(GREY, "JPEG2000")
        start = stream.index(b"\xff\x4f\xff\x51")
        pieces = [stream[begin:end] for begin, end in pairwise([0, *cuts, start, None])]
        attributes = {**RANGE, "PixelData": in_items(pieces)}
        whole = decoded(mr_object(GREY, JPEG2000Lossless, attributes=attributes))
        assert difference(whole.pixels, GREY) <= 1
        for more in (pieces[-1], stream):
            attributes["PixelData"] = in_items([*pieces, more])
            with pytest.raises(UndecodableImage, match="more frames than it states"):
                decoded(mr_object(GREY, JPEG2000Lossless, attributes=attributes))

    @pytest.mark.parametrize("surplus", [1, 2, GREY.shape[1]])
    def test_padding_behind_the_pixels_is_none_of_them(self, surplus: int) -> None:
        """The most of pydicom's files is a row (MR_small_padded.dcm)."""
        padded = {**RANGE, "PixelData": GREY.tobytes() + bytes(surplus)}
        assert difference(decoded(mr_object(GREY, attributes=padded)).pixels, GREY) <= 1

    @pytest.mark.parametrize("name", SYNTAXES)
    def test_any_cut_gives_a_decode_error(self, name: str) -> None:
        data = mr_object(GREY, SYNTAXES[name], attributes=RANGE)
        for length in range(132, len(data) - 16, max(1, len(data) // 200)):
            with pytest.raises(DecodeError):
                decode(data[:length])

    def test_a_cut_is_called_a_cut(self) -> None:
        data = OBJECTS[0].read_bytes()
        with pytest.raises(TruncatedImage):
            decoded(data[:-1000])
        # In the middle of a value, before there are pixels.
        with pytest.raises(TruncatedImage):
            decoded(data[: data.index(b"MONOCHROME2") + 4])

    def test_it_says_where_it_belongs_whatever_is_said_of_its_frames(self) -> None:
        """Which may be very many, and none of them is looked at."""
        measures, groups = Dataset(), Dataset()
        measures.add_new("PixelSpacing", "LO", "wide")
        groups.PixelMeasuresSequence = [measures]
        attributes = {
            "Modality": "CT",
            "StudyInstanceUID": "1.2",
            "SeriesInstanceUID": "1.2.3",
            "PerFrameFunctionalGroupsSequence": [groups],
        }
        with pytest.raises(NotMr) as raised:
            decoded(mr_object(GREY, attributes=attributes))
        place = raised.value.dicom
        assert place is not None
        assert (raised.value.study, place.series_instance_uid) == ("1.2", "1.2.3")

    @pytest.mark.parametrize("size", [0, 1, 131, 132, 140], ids="{}-bytes".format)
    def test_hardly_anything(self, size: int) -> None:
        with pytest.raises(DecodeError):
            decoded(mr_object(GREY)[:size])


class TestBombs:
    def test_the_limit_is_exact(self) -> None:
        data = mr_object(GREY)
        assert decoded(data, Policy(max_pixels=GREY.size)).original_size == GREY.shape
        with pytest.raises(TooManyPixels):
            decoded(data, Policy(max_pixels=GREY.size - 1))

    @pytest.mark.parametrize("frames", [4, 10**6])
    def test_frames_count(self, frames: int) -> None:
        with pytest.raises(TooManyFrames):
            decoded(mr_object(GREY, attributes={"NumberOfFrames": frames}), Policy(max_frames=3))

    def test_a_deflated_object_of_zeros(self) -> None:
        dataset = dcmread(io.BytesIO(mr_object(GREY)))
        dataset.add_new(0x00091010, "OB", bytes(64 * 2**20))
        data = write(dataset, SYNTAXES["deflated"])
        assert len(data) < 200_000
        with pytest.raises(TooManyPixels):
            decoded(data, Policy(max_pixels=1_000_000))

    def test_a_deflated_object_may_have_its_pixels_and_16_mib(self) -> None:
        dataset = dcmread(io.BytesIO(mr_object(GREY)))
        dataset.add_new(0x00091010, "OB", bytes(18 * 2**20))
        data = write(dataset, SYNTAXES["deflated"])
        assert decoded(data, Policy(max_pixels=100 * GREY.size)).pixels.shape == GREY.shape
        with pytest.raises(TooManyPixels):
            decoded(data, Policy(max_pixels=10 * GREY.size))

    def test_a_deflated_object_without_its_end(self) -> None:
        """All its pixels are there, but not all of what lies behind them."""
        dataset = dcmread(io.BytesIO(mr_object(GREY)))
        padding = np.random.default_rng(0).integers(0, 255, 10_000, np.uint8).tobytes()
        dataset.add_new(0xFFFCFFFC, "OB", padding)
        data = write(dataset, SYNTAXES["deflated"])
        assert decoded(data).pixels.shape == GREY.shape
        with pytest.raises(TruncatedImage):
            decoded(data[:-5_000])

    @pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless], ids=["jpeg", "j2k"])
    def test_a_compressed_image_of_another_size(self, syntax: UID) -> None:
        large = Image.new("L", (3000, 3000))
        stream = (
            encode(large, "JPEG")
            if syntax == JPEGBaseline8Bit
            else encode(large, "JPEG2000", no_jp2=True)
        )
        with pytest.raises(UndecodableImage):
            decoded(mr_object(GREY, syntax, attributes={"PixelData": encapsulate([stream])}))

    def test_an_rle_frame_that_unpacks_to_too_much(self) -> None:
        header = np.array([1, 64] + [0] * 14, "<u4").tobytes()
        frame = header + b"\x81\x00" * 1_000_000
        with pytest.raises(TooManyPixels):
            decoded(mr_object(GREY, RLELossless, attributes={"PixelData": encapsulate([frame])}))

    def test_an_rle_frame_of_a_large_image_is_not_longer_than_one_may_be(self) -> None:
        frame = np.array([1, 64] + [0] * 14, "<u4").tobytes() + bytes(MAX_RLE_BYTES)
        attributes = {"Rows": 3000, "Columns": 3000, "PixelData": encapsulate([frame])}
        with pytest.raises(TooManyPixels):
            decoded(mr_object(GREY, RLELossless, attributes=attributes))

    def test_sequence_items_without_end(self) -> None:
        data = mr_object(GREY)
        items = b"\xfe\xff\x00\xe0\0\0\0\0" * (MAX_ITEMS + 1)
        sequence = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff" + items
        with pytest.raises(UndecodableImage, match="items"):
            decoded(data + sequence)

    @pytest.mark.parametrize("syntax", ["explicit", "implicit", "deflated"])
    def test_elements_without_end(self, syntax: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dicom_size, "MAX_ELEMENTS", 1000)
        dataset = dcmread(io.BytesIO(mr_object(GREY)))
        for number in range(1001):
            dataset.add(DataElement(Tag(0x0009, number), "LO", ""))
        with pytest.raises(UndecodableImage, match="elements"):
            decoded(write(dataset, SYNTAXES[syntax]))

    def test_elements_without_end_in_a_sequence(self) -> None:
        elements = b"\x09\x00\x10\x10LO\0\0" * (MAX_ELEMENTS + 1)
        item = b"\xfe\xff\x00\xe0" + len(elements).to_bytes(4, "little") + elements
        groups = b"\x00\x52\x29\x92SQ\0\0" + len(item).to_bytes(4, "little") + item
        data = mr_object(GREY)
        at = data.index(b"\xe0\x7f\x10\x00")
        with pytest.raises(UndecodableImage, match="elements"):
            decoded(data[:at] + groups + data[at:])

    @pytest.mark.parametrize("path", [*OBJECTS, *SHIPPED], ids=lambda path: path.name)
    def test_elements_are_counted_as_they_are_read(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        quieten()
        count = len(list(dcmread(path, force=True).iterall()))
        inflated = inflate(path.read_bytes(), 10_000_000)
        monkeypatch.setattr(dicom_size, "MAX_ELEMENTS", 3 * count + 30)
        check_size(inflated.data, inflated.meta)
        monkeypatch.setattr(dicom_size, "MAX_ELEMENTS", count // 2)
        with pytest.raises(UndecodableImage, match="elements"):
            check_size(inflated.data, inflated.meta)

    def test_sequences_without_bottom(self) -> None:
        nested = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
        with pytest.raises(DecodeError):
            decoded(mr_object(GREY)[:200] + nested * 20_000)

    def test_header_of_a_jpeg_stream(self) -> None:
        grey = (*GREY.shape, 1, 8)
        assert jpeg_header(encode(GREY, "JPEG", comment=b"x" * 500)) == grey
        assert jpeg_header(encode(GREY, "JPEG", progressive=True)) == grey
        lossless = b"\xff\xd8\xff\xff\xff\xc3\0\x0b\x0c\0\x05\0\x07\x03"
        assert jpeg_header(lossless) == (5, 7, 3, 12)
        assert jpeg_header(lossless.replace(b"\xc3", b"\xf7")) == (5, 7, 3, 12)
        # Huffman and arithmetic tables and an extension come before it, and have its number range.
        for marker in (0xC4, 0xC8, 0xCC):
            table = bytes([0xFF, marker]) + b"\0\x09\x08\0\x02\0\x02\x01\x11"
            assert jpeg_header(lossless[:2] + table + lossless[2:]) == (5, 7, 3, 12)
        for stream in (b"", b"\xff\xd8", b"\xff\xd8\xff\xda\0\x02", b"\xff\xd8" + b"\xff" * 99):
            assert jpeg_header(stream) is None

    def test_header_of_a_jpeg2000_stream(self) -> None:
        assert jpeg2000_header(encode(GREY, "JPEG2000", no_jp2=True)) == (*GREY.shape, 1, 8)
        assert jpeg2000_header(encode(GREY, "JPEG2000")) is None, "a JP2 file is no codestream"
        assert jpeg2000_header(b"\xff\x4f\xff\x51") is None
        size = (
            struct.pack(">HHH4I", 0xFF51, 41, 0, 70, 50, 7, 5) + bytes(16) + b"\0\x03\x8b\x01\x01"
        )
        found = jpeg2000_header(b"\xff\x4f" + size)
        assert found == (45, 63, 3, 12), "its image area may begin elsewhere than at 0"

    def test_colours(self) -> None:
        colour = np.stack([GREY] * 3, axis=-1)
        jfif = encode(colour, "JPEG")
        rgb = encode(colour, "JPEG", keep_rgb=True)
        assert (jpeg_is_ycbcr(jfif), jpeg_is_ycbcr(rgb)) == (True, False)
        assert jpeg_is_ycbcr(rgb[:2] + jfif[2:20] + rgb[2:]) is True, (
            "JFIF goes first, as in libjpeg"
        )
        assert jpeg_is_ycbcr(rgb[:2] + rgb[2:18] + jfif[2:]) is True, "wherever it is"
        behind = jfif[:2] + jfif[20:-2] + jfif[2:20] + rgb[2:18]
        for stream in (b"", b"\xff\xd8", jfif[:6], rgb[:10], behind):
            assert jpeg_is_ycbcr(stream) is None
        for transform in (0, 1):
            stream = encode(colour, "JPEG2000", no_jp2=True, mct=transform)
            assert jpeg2000_is_transformed(stream) is (transform == 1)
        style = stream.index(b"\xff\x52")
        tile = stream.index(b"\xff\x90")
        late = stream[:style] + stream[tile:] + stream[style:]
        for damaged in (b"", stream[: style + 8], late):
            assert jpeg2000_is_transformed(damaged) is False
