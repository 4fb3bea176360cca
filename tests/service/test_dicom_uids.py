"""UIDs of the results."""

import uuid

import pytest
from pydicom.uid import UID

from service.dicom.uids import MAX_LENGTH, MAX_ROOT_LENGTH, UUID_ROOT, derive, is_root

ROOTS = [UUID_ROOT, "1.2.826.0.1.3680043.10.1234", "1.2." + "3" * (MAX_ROOT_LENGTH - 4)]


@pytest.mark.parametrize("root", ROOTS)
def test_derived_uids_are_valid_and_follow_from_their_parts(root: str) -> None:
    made = {derive(root, "a", str(number)) for number in range(1000)}
    assert len(made) == 1000
    assert all(UID(uid).is_valid and len(uid) <= MAX_LENGTH for uid in made)
    assert all(uid.startswith(f"{root}.") for uid in made)
    assert derive(root, "a", "7") in made
    assert derive(root, "a7") not in made


def test_without_a_root_of_ones_own_a_uid_is_a_uuid() -> None:
    value = uuid.UUID(int=int(derive(UUID_ROOT, "a").removeprefix(f"{UUID_ROOT}.")))
    assert (value.version, value.variant) == (8, uuid.RFC_4122)


@pytest.mark.parametrize(
    "root",
    ["", "1", "1.", "1.02", "3.1", "1.a", "1..2", " 1.2", "1.2." + "3" * MAX_ROOT_LENGTH],
    ids=["empty", "one arc", "dot", "zero", "no root arc", "letter", "gap", "space", "long"],
)
def test_what_is_no_root(root: str) -> None:
    assert not is_root(root)
    with pytest.raises(ValueError, match="root"):
        derive(root, "a")
