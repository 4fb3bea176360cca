"""How much of a DICOM object pydicom is let parse: its header, and items by whatever tag."""

import io
import random
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

import pytest
from pydicom import Dataset, dcmread, filereader, values
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
)

from contract import dicom_size
from contract.decoding import open_source
from contract.dicom_meta import EXPLICIT_HEADER, LONG_VRS, MAX_META_BYTES, inflate
from contract.dicom_size import BoundedReader, check_size
from contract.errors import DecodeError, TruncatedImage, UndecodableImage
from contract.policy import Checks, Policy
from contract.quiet import quieten
from tests.contract.rendering import decoded
from tests.contract.samples import SYNTAXES, grey_slice, mr_frames, mr_object

GREY = grey_slice()
ENDLESS = 0xFFFFFFFF
PREAMBLE = bytes(128) + b"DICM"
NATIVE = ["explicit", "implicit", "big-endian", "deflated"]


class Items(list[Dataset]):
    """Those that pydicom has made."""


@pytest.fixture
def items(monkeypatch: pytest.MonkeyPatch) -> Items:
    made, read = Items(), filereader.read_sequence_item

    def counting(*arguments: object, **options: object) -> Dataset | None:
        item: Dataset | None = read(*arguments, **options)  # type: ignore[arg-type]
        if item is not None:
            made.append(item)
        return item

    monkeypatch.setattr(filereader, "read_sequence_item", counting)
    return made


def element(tag: int, vr: str, value: bytes, length: int | None = None, order: str = "<") -> bytes:
    """Explicit, or implicit where there is no ``vr``."""
    length = len(value) if length is None else length
    halves = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if not vr:
        return halves + struct.pack(f"{order}L", length) + value
    if vr.encode() in LONG_VRS:
        return halves + vr.encode() + bytes(2) + struct.pack(f"{order}L", length) + value
    return halves + vr.encode() + struct.pack(f"{order}H", length) + value


def item(value: bytes, length: int | None = None, order: str = "<") -> bytes:
    return element(0xFFFEE000, "", value, length, order)


def syntax_element(syntax: UID) -> bytes:
    return element(0x00020010, "UI", syntax.encode() + bytes(len(syntax) % 2))


def deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


def with_header(*elements: bytes) -> bytes:
    """An object whose header has these elements, and says that it is explicit little endian."""
    data = mr_object(GREY)
    behind = data[inflate(data, 1).meta.end :]
    return PREAMBLE + b"".join(elements) + syntax_element(ExplicitVRLittleEndian) + behind


def inserted(data: bytes, more: bytes, name: str = "explicit") -> bytes:
    """An object with more elements before its pixels' description, in whatever syntax."""
    order = ">" if name == "big-endian" else "<"
    opened = inflate(data, 10_000_000)
    at = opened.data.index(struct.pack(f"{order}HH", 0x0028, 0x0002), opened.meta.end)
    result = opened.data[:at] + more + opened.data[at:]
    if name != "deflated":
        return result
    return (
        PREAMBLE
        + syntax_element(DeflatedExplicitVRLittleEndian)
        + deflated(result[len(EXPLICIT_HEADER) :])
    )


class TestHeader:
    @pytest.mark.parametrize("tag", [0x00020001, 0x00020102])
    @pytest.mark.parametrize("vr", ["UN", "SQ", "OB", ""])
    def test_what_has_no_end_is_not_parsed(self, vr: str, tag: int, items: Items) -> None:
        endless = PREAMBLE + element(tag, vr, bytes(80_000), ENDLESS)
        with pytest.raises(UndecodableImage, match="header"):
            open_source(endless)
        assert not items

    @pytest.mark.parametrize("tag", [0x00020000, 0x00020010])
    def test_a_sequence_is_not_parsed_either(self, tag: int, items: Items) -> None:
        with pytest.raises(UndecodableImage, match="header"):
            open_source(with_header(element(tag, "SQ", bytes(8_000))))
        assert not items

    @pytest.mark.parametrize("length", [0, 5_000, MAX_META_BYTES - 100])
    def test_private_information_may_be_long(self, length: int) -> None:
        private = element(0x00020102, "OB", bytes(length))
        assert decoded(with_header(private)).pixels.shape == GREY.shape

    def test_but_not_without_end(self) -> None:
        with pytest.raises(UndecodableImage, match="too long"):
            open_source(with_header(element(0x00020102, "OB", bytes(MAX_META_BYTES))))
        many = (MAX_META_BYTES // 8) * element(0x00020102, "LO", b"")
        with pytest.raises(UndecodableImage, match="too long"):
            open_source(with_header(many))

    def test_its_length_is_not_needed(self) -> None:
        assert decoded(with_header()).pixels.shape == GREY.shape
        wrong = element(0x00020000, "UL", b"\1\0\0\0")
        assert decoded(with_header(wrong)).pixels.shape == GREY.shape

    @pytest.mark.parametrize("name", ["explicit", "implicit", "big-endian"])
    def test_nor_is_there_need_for_one(self, name: str) -> None:
        data = mr_object(GREY, SYNTAXES[name])
        bare = PREAMBLE + data[inflate(data, 1).meta.end :]
        try:
            expected = dcmread(io.BytesIO(bare)).get("Rows")
        except Exception:  # noqa: BLE001 - pydicom cannot tell what it is either
            expected = None
        if expected == GREY.shape[0]:
            assert decoded(bare).pixels.shape == GREY.shape
        else:
            with pytest.raises(DecodeError):
                open_source(bare)

    def test_it_may_be_implicit(self) -> None:
        data = mr_object(GREY)
        uid = ExplicitVRLittleEndian.encode() + b"\0"
        implicit = element(0x00020000, "", bytes(4)) + element(0x00020010, "", uid)
        whole = PREAMBLE + implicit + data[inflate(data, 1).meta.end :]
        assert decoded(whole).pixels.shape == GREY.shape

    def test_a_message_may_stand_behind_it(self) -> None:
        data = mr_object(GREY)
        start = inflate(data, 1).meta.end
        message = element(0x00000100, "", b"\1\0")
        assert decoded(data[:start] + message + data[start:]).pixels.shape == GREY.shape
        endless = element(0x00000100, "", bytes(80_000), ENDLESS)
        with pytest.raises(UndecodableImage, match="header"):
            open_source(data[:start] + endless + data[start:])

    def test_its_end_is_no_delimiter(self) -> None:
        data = mr_object(GREY)
        start = inflate(data, 1).meta.end
        with pytest.raises(UndecodableImage, match="header"):
            open_source(data[:start] + b"\xfe\xff\x0d\xe0" + bytes(4) + data[start:])

    def test_a_cut_in_it_is_called_a_cut(self) -> None:
        data, last = with_header(), syntax_element(ExplicitVRLittleEndian)
        end = data.index(last) + len(last)
        for length in range(end - len(last) + 2, end):
            with pytest.raises(TruncatedImage):
                open_source(data[:length])

    def test_what_is_inflated_has_none_that_says_deflated_again(self, items: Items) -> None:
        """Pydicom would inflate that, and without a limit."""
        header = syntax_element(DeflatedExplicitVRLittleEndian)
        data = header + deflated(bytes(100_000))
        with pytest.raises(UndecodableImage, match="header of its own"):
            open_source(PREAMBLE + header + deflated(data))
        assert not items


class TestItems:
    """None of these values begins with an item; pydicom makes one of each eight bytes."""

    @pytest.fixture(autouse=True)
    def few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dicom_size, "MAX_ITEMS", 500)

    @pytest.mark.parametrize("name", NATIVE)
    @pytest.mark.parametrize(
        ("tag", "vr", "length"),
        [
            (0x00102202, "SQ", None),
            (0x00102202, "UN", None),
            (0x52009230, "SQ", None),
            (0x52009230, "UN", None),
            (0x00102202, "SQ", ENDLESS),
            (0x52009230, "UN", ENDLESS),
        ],
    )
    def test_of_zeros(self, name: str, tag: int, vr: str, length: int | None, items: Items) -> None:
        order = ">" if name == "big-endian" else "<"
        more = element(tag, "" if name == "implicit" else vr, bytes(8 * 501), length, order)
        with pytest.raises(UndecodableImage, match="sequence items"):
            open_source(inserted(mr_object(GREY, SYNTAXES[name]), more, name)).slice(1)
        assert not items

    @pytest.mark.parametrize("name", ["explicit", "big-endian", "deflated"])
    @pytest.mark.parametrize(
        ("vr", "length"), [("SQ", None), ("SQ", ENDLESS), ("UN", ENDLESS)], ids=str
    )
    def test_in_a_private_sequence(
        self, name: str, vr: str, length: int | None, items: Items
    ) -> None:
        order = ">" if name == "big-endian" else "<"
        more = element(0x00091010, vr, bytes(8 * 501), length, order)
        with pytest.raises(UndecodableImage, match="sequence items"):
            open_source(inserted(mr_object(GREY, SYNTAXES[name]), more, name))
        assert not items

    @pytest.mark.parametrize("name", NATIVE)
    @pytest.mark.parametrize("length", [None, ENDLESS], ids=["defined", "undefined"])
    def test_in_an_item(self, name: str, length: int | None, items: Items) -> None:
        """Of per-frame functional groups, which are read for each frame."""
        order = ">" if name == "big-endian" else "<"
        vr = "" if name == "implicit" else "SQ"
        inner = element(0x00209113, vr, bytes(8 * 501), None, order)
        outer = element(0x52009230, vr, item(inner, length, order), length, order)
        with pytest.raises(UndecodableImage, match="sequence items"):
            open_source(inserted(mr_object(GREY, SYNTAXES[name]), outer, name)).slice(1)
        assert not items

    def test_behind_an_element_that_claims_to_be_longer_than_its_sequence(self) -> None:
        hiding = element(0x00091010, "SQ", item(element(0x00091011, "OB", b"", 2**31 - 1)))
        zeros = element(0x00102202, "SQ", bytes(8 * 501))
        with pytest.raises(UndecodableImage, match="sequence items"):
            open_source(inserted(mr_object(GREY), hiding + zeros))

    def test_behind_an_item_that_is_shorter_than_its_element(self) -> None:
        """The element moves what follows, and what looks like items is its value."""
        value = item(element(0x00080100, "UT", bytes(40)), 12)
        zeros = element(0x00102202, "SQ", value + bytes(8 * 501))
        with pytest.raises(UndecodableImage, match="sequence items"):
            open_source(inserted(mr_object(GREY), zeros))

    def test_behind_a_value_without_end_in_a_sequence(self) -> None:
        """Pydicom reads on from where the value begins."""
        value = item(element(0x00091010, "OB", bytes(8 * 501), ENDLESS))
        with pytest.raises(TruncatedImage):
            open_source(inserted(mr_object(GREY), element(0x00102202, "SQ", value)))

    def test_fragments_are_none(self) -> None:
        """Nor does their content count, or that of any other value."""
        packed = item(b"") + 100 * item(bytes(8 * 100))
        delimiter = element(0xFFFEE0DD, "", b"")
        value = element(0x00091010, "OB", packed + delimiter, ENDLESS)
        other = element(0x00091011, "OB", 600 * item(b""))
        data = inserted(mr_object(GREY), value + other)
        assert decoded(data).pixels.shape == GREY.shape

    def test_so_many_there_may_be(self) -> None:
        just = element(0x00102202, "SQ", 500 * item(b""))
        assert decoded(inserted(mr_object(GREY), just)).pixels.shape == GREY.shape


FRAMES = 4


def with_frames(*more: bytes) -> bytes:
    """An object of some frames, with more elements."""
    data = mr_frames([GREY] * FRAMES)
    at = data.index(struct.pack("<HH", 0x7FE0, 0x0010))
    return data[:at] + b"".join(more) + data[at:]


def opened_and_read(data: bytes, keep: tuple[str, ...] = ()) -> None:
    with suppress(DecodeError):
        source = open_source(data, policy=Policy(checks=Checks.OFF), keep=keep)
        for frame in range(1, FRAMES + 1):
            with suppress(DecodeError):
                source.reference(frame)
            with suppress(DecodeError):
                source.slice(frame)


LUT = element(0x00283002, "US", bytes(6)) + element(0x00283006, "OW", bytes(512))


LISTS = {
    "numbers": (0x00280030, b"1\\"),
    "windows": (0x00281050, b"1\\"),
    "identifiers": (0x0020000E, b"1\\"),
    "character sets": (0x00080005, b"\\\\"),
    "paddings": (0x00280120, bytes(2)),
    "private": (0x0043102F, b"1\\"),
}
"""A tag whose values pydicom makes objects of, and two bytes that are one of them, or two."""


class TestValues:
    """Of each that an element lists pydicom makes an object of a hundred times its bytes."""

    @pytest.mark.parametrize("vr", ["", "UN"])
    @pytest.mark.parametrize(("tag", "value"), LISTS.values(), ids=LISTS)
    def test_an_element_is_not_longer_than_a_table(self, tag: int, value: bytes, vr: str) -> None:
        data = mr_object(GREY, syntax=SYNTAXES["explicit" if vr else "implicit"])
        longest = element(tag, vr, value * (dicom_size.MAX_VALUE_BYTES // 2))
        check(inserted(data, longest))
        with pytest.raises(UndecodableImage, match="too long"):
            check(inserted(data, element(tag, vr, value * (dicom_size.MAX_VALUE_BYTES // 2 + 1))))

    @pytest.mark.parametrize("vr", ["", "UN"])
    def test_a_table_of_real_world_values_has_entries_of_eight_bytes(self, vr: str) -> None:
        data = mr_object(GREY, syntax=SYNTAXES["explicit" if vr else "implicit"])
        tag, entry = dicom_size.REAL_WORLD_LUT, struct.pack("<d", 1.5)
        check(inserted(data, element(tag, vr, entry * 2**16)))
        with pytest.raises(UndecodableImage, match="too long"):
            check(inserted(data, element(tag, vr, entry * (2**16 + 1))))
        # Others' values may be smaller, whatever the tag says, and so be more.
        if vr:
            with pytest.raises(UndecodableImage, match="too long"):
                check(inserted(data, element(tag, "UC", b"1\\" * 2**17)))

    def test_each_frame_may_have_its_own_table_of_real_world_values(self) -> None:
        data = mr_object(GREY, syntax=SYNTAXES["implicit"])
        table = element(dicom_size.REAL_WORLD_LUT, "", struct.pack("<d", 1.5) * 2**12)
        check(inserted(data, table * 60))
        with pytest.raises(UndecodableImage, match="too many values"):
            check(inserted(data, table * (dicom_size.MAX_VALUES // 2**12 + 1)))

    def test_nor_is_one_that_goes_on_to_a_delimiter(self) -> None:
        data = mr_object(GREY, syntax=SYNTAXES["implicit"])
        values = b"1\\" * (dicom_size.MAX_VALUE_BYTES // 2 + 1)
        endless = element(0x00280030, "", values, ENDLESS) + element(0xFFFEE0DD, "", b"")
        with pytest.raises(UndecodableImage, match="too long"):
            check(inserted(data, endless))

    @pytest.mark.parametrize(("tag", "value"), LISTS.values(), ids=LISTS)
    def test_nor_are_there_more_values_in_many(self, tag: int, value: bytes) -> None:
        data = mr_object(GREY, syntax=SYNTAXES["implicit"])
        one = item(element(tag, "", value * 2_000))
        with pytest.raises(UndecodableImage, match="values"):
            check(inserted(data, element(0x52009230, "", 251 * one)))
        check(inserted(data, element(0x52009230, "", 100 * one)))

    @pytest.mark.parametrize("tag", [0x00091010, 0x60003000, 0x00143050])
    def test_what_nobody_converts_may_be_long(self, tag: int) -> None:
        data = mr_object(GREY, syntax=SYNTAXES["implicit"])
        check(inserted(data, element(tag, "", bytes(1_000_000))))


def check(data: bytes) -> None:
    opened = inflate(data, 100_000_000)
    check_size(opened.data, opened.meta)


class TestOnce:
    """What pydicom makes items of, it makes them of once, however many frames there are."""

    @pytest.mark.parametrize("tag", [0x00283000, 0x00283010, 0x52009229, 0x00082218])
    @pytest.mark.parametrize("first", [b"", LUT], ids=["empty", "table"])
    def test_of_what_is_whole(self, tag: int, first: bytes, items: Items) -> None:
        opened_and_read(with_frames(element(tag, "SQ", item(first) + 99 * item(b""))))
        assert len(items) == 100

    @pytest.mark.parametrize("group", [0x00289145, 0x00289132])
    def test_in_shared_groups(self, group: int, items: Items) -> None:
        tables = element(0x00283010, "SQ", item(LUT) + 99 * item(b""))
        shared = item(element(group, "SQ", item(tables)))
        opened_and_read(with_frames(element(0x52009229, "SQ", shared)))
        assert len(items) == 102

    @pytest.mark.parametrize(
        ("tag", "inside"), [(0x00283010, False), (0x52009229, False), (0x00289110, True)]
    )
    def test_of_what_fails(
        self, tag: int, inside: bool, items: Items, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By whatever damage the count lets through."""
        monkeypatch.setattr("contract.dicom.check_size", lambda *_: None)
        more = element(tag, "SQ", 100 * item(b"") + bytes(4))
        more = element(0x52009229, "SQ", item(more)) if inside else more
        opened_and_read(with_frames(more))
        assert len(items) == 100 + inside

    def test_of_long_numbers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        converted, convert = [], values.convert_DS_string

        def counting(text: bytes, *arguments: Any) -> object:
            converted.append(text)
            return convert(text, *arguments)

        monkeypatch.setitem(cast("dict[str, Any]", values.converters), "DS", counting)
        centres = b"\\".join([b"40"] * 1000) + b" "
        opened_and_read(with_frames(element(0x00281050, "DS", centres)))
        assert converted.count(centres) == 1

    @pytest.mark.parametrize("length", [None, ENDLESS], ids=["defined", "undefined"])
    def test_for_object_and_header(self, length: int | None, items: Items) -> None:
        end = b"" if length is None else element(0xFFFEE0DD, "", b"")
        value = 100 * item(b"") + end
        more = element(0x00082218, "SQ", value, length)
        opened_and_read(inserted(mr_object(GREY), more), keep=("PatientID", "StudyDate"))
        assert len(items) == 100


class TestStub:
    """What pydicom finds where it looks for an item's tag, and that is too short."""

    @pytest.mark.parametrize("name", NATIVE)
    @pytest.mark.parametrize("stub", range(1, 8))
    def test_at_the_end_of_a_sequence(self, name: str, stub: int, items: Items) -> None:
        order = ">" if name == "big-endian" else "<"
        vr = "" if name == "implicit" else "SQ"
        more = element(0x00102202, vr, 3 * item(b"", order=order) + bytes(stub), None, order)
        with pytest.raises(TruncatedImage, match="within a sequence"):
            open_source(inserted(mr_object(GREY, SYNTAXES[name]), more, name))
        assert not items

    @pytest.mark.parametrize("stub", [0, 4])
    def test_at_the_end_of_one_without_its_delimiter(self, stub: int, items: Items) -> None:
        inner = element(0x00102202, "SQ", 3 * item(b"") + bytes(stub), ENDLESS)
        more = element(0x00102202, "SQ", item(inner))
        with pytest.raises(TruncatedImage, match="within a sequence"):
            open_source(inserted(mr_object(GREY), more))
        assert not items

    def test_does_no_harm_in_private_bytes(self) -> None:
        more = element(0x00091010, "UN", item(b"") + bytes(4))
        assert decoded(inserted(mr_object(GREY), more)).pixels.shape == GREY.shape


def test_in_an_implicit_object_no_length_is_a_representation(
    items: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first element of an item may be as long as the letters AA say."""
    monkeypatch.setattr(dicom_size, "MAX_ITEMS", 500)
    first = element(0x00080100, "", bytes(0x4141))
    value = item(first + element(0x00102202, "", 501 * item(b"")))
    more = element(0x00102202, "", value)
    with pytest.raises(UndecodableImage, match="sequence items"):
        open_source(inserted(mr_object(GREY, SYNTAXES["implicit"]), more, "implicit"))
    assert not items


def test_only_what_is_read_of_it_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_size, "MAX_ITEMS", 10)
    opened = inflate(
        inserted(mr_object(GREY), element(0x00200242, "SQ", 20 * item(b""))), 10_000_000
    )
    check_size(opened.data, opened.meta, 0x0020000E)
    with pytest.raises(UndecodableImage, match="items"):
        check_size(opened.data, opened.meta, 0x00200242)


def pieces(chance: random.Random, order: str, is_implicit: bool) -> Iterator[bytes]:
    """Parts of sequences and elements, in no good order."""
    tags = [
        *(0x00102202, 0x00091010, 0x00090010, 0x00209111, 0x52009229, 0x52009230, 0x00283010),
        *(0x00082218, 0x0020000D, 0x7FE00010, 0x00180001, 0x0043102F, 0xFFFEE000, 0x50002600),
    ]
    for _ in range(chance.randrange(1, 30)):
        length = chance.choice(
            [
                0,
                0,
                4,
                8,
                8,
                12,
                16,
                20,
                32,
                64,
                100,
                ENDLESS,
                ENDLESS,
                chance.randrange(200),
                0x4141,
            ]
        )
        kind = chance.randrange(9)
        if kind < 3:
            yield item(b"", length, order)
        elif kind == 3:
            yield element(chance.choice([0xFFFEE00D, 0xFFFEE0DD]), "", b"", 0, order)
        elif kind == 4:
            yield bytes(chance.choice([4, 8, 8, 16, 24]))
        else:
            no_vr = chance.random() < (0.85 if is_implicit else 0.2)
            vrs = ["SQ", "SQ", "UN", "OB", "LO", "UT", "ZZ", "US", "OW"]
            vr = "" if no_vr else chance.choice(vrs)
            if vr and vr.encode() not in LONG_VRS:
                length = min(length, 0xFFFF)
            value = bytes(length) if length < 200 and chance.random() < 0.5 else b""
            yield element(chance.choice(tags), vr, value, length, order)


def counted(data: bytes) -> None:
    opened = inflate(data, 10_000_000)
    check_size(opened.data, opened.meta)


def converted(dataset: Dataset) -> None:
    """Reads all of its sequences, which pydicom leaves for when they are asked for."""
    for tag in list(dataset.keys()):
        try:
            found = dataset[tag]
        except Exception:  # noqa: BLE001, S112 - whatever there is wrong with it
            continue
        if found.VR == "SQ":
            for inner in found.value or []:
                converted(inner)


@pytest.mark.parametrize("name", ["explicit", "implicit", "big-endian"])
def test_no_item_hides_from_the_count(
    name: str, items: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the damage, pydicom makes no more items than were counted."""
    quieten()
    base, order = mr_object(GREY, SYNTAXES[name]), ">" if name == "big-endian" else "<"
    start = inflate(base, 1).meta.end
    places = [start, base.index(struct.pack(f"{order}HH", 0x0028, 0x0002), start), len(base)]
    tried = 0
    for seed in range(400):
        chance = random.Random(seed)  # noqa: S311 - the same each time
        at = chance.choice(places)
        soup = b"".join(pieces(chance, order, name == "implicit"))
        data = base[:at] + soup + base[at:]
        items.clear()
        with suppress(Exception):  # It may have made some before.
            converted(dcmread(BoundedReader(data)))
        if not items:
            continue
        tried += 1
        monkeypatch.setattr(dicom_size, "MAX_ITEMS", len(items) - 1)
        with pytest.raises(DecodeError):
            counted(data)
    assert tried > 40
