"""Which files hold the same, whatever is said before their data sets."""

from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from service.content import META_BYTES, ContentHash, content_digest
from tests.support.dicom import encoded

FILE = Path(__file__).parents[1] / "data" / "dicom" / "axial_t1_defaced_0220.dcm"


def with_meta(**attributes: Any) -> bytes:
    """The file after another archive."""
    dataset = dcmread(FILE)
    for keyword, value in attributes.items():
        setattr(dataset.file_meta, keyword, value)
    return encoded(dataset)


PLAIN = with_meta()


@pytest.mark.parametrize(
    "attributes",
    [
        {"ImplementationVersionName": "OTHER_1"},
        {"SourceApplicationEntityTitle": "GATEWAY2"},
        {"PrivateInformationCreatorUID": "1.2.3", "PrivateInformation": b"x" * 1000},
    ],
    ids=lambda attributes: next(iter(attributes)),
)
def test_the_same_image_after_another_archive_is_the_same(attributes: dict[str, Any]) -> None:
    other = with_meta(**attributes)
    assert other != PLAIN
    assert content_digest(other) == content_digest(PLAIN)
    assert content_digest(b"preamble" + other[8:]) == content_digest(PLAIN)


def test_any_other_data_set_is_another_one() -> None:
    digest = content_digest(PLAIN)
    length = int.from_bytes(PLAIN[140:144], "little")
    for at in (144 + length, len(PLAIN) - 1):
        changed = bytearray(PLAIN)
        changed[at] ^= 1
        assert content_digest(bytes(changed)) != digest
    assert content_digest(PLAIN[:-1]) != digest


def test_another_transfer_syntax_gives_the_same_bytes_another_meaning() -> None:
    """As where the one that was stated is put right."""
    other = PLAIN.replace(b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.3\0", 1)
    assert other != PLAIN
    assert content_digest(other) != content_digest(PLAIN)


@pytest.mark.parametrize("surplus", [-1, 2, 1000, len(PLAIN) - 500, len(PLAIN), 2**31])
def test_a_wrong_length_hides_nothing_of_the_image(surplus: int) -> None:
    length = int.from_bytes(PLAIN[140:144], "little") + surplus
    wrong = PLAIN[:140] + length.to_bytes(4, "little") + PLAIN[144:]
    changed = bytearray(wrong)
    changed[600] ^= 1
    assert content_digest(bytes(changed)) != content_digest(wrong)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"\x02\0\0\0UL\x04\0" + bytes(200),
        bytes(128) + b"DICM",
        bytes(200_000),
        PLAIN[:144],
    ],
    ids=["nothing", "a byte", "no preamble", "DICM alone", "zeros", "meta alone"],
)
def test_what_is_no_dicom_file_counts_as_a_whole(data: bytes) -> None:
    assert content_digest(data + b"1") != content_digest(data)
    assert content_digest(b"1" + data) != content_digest(data)


@pytest.mark.parametrize("size", [1, 7, 1000, META_BYTES, META_BYTES + 1])
@pytest.mark.parametrize("data", [PLAIN, bytes(100_000), b"junk"], ids=["file", "zeros", "junk"])
def test_it_does_not_matter_in_which_pieces_it_comes(data: bytes, size: int) -> None:
    found = ContentHash()
    for at in range(0, len(data), size):
        found.update(data[at : at + size])
    assert found.digest() == content_digest(data)
