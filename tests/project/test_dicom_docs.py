"""docs/dicom-input.md names what the code accepts and refuses: all of it, and nothing else."""

import re
from pathlib import Path

from pydicom.uid import UID, ImplicitVRLittleEndian

from contract import errors as contract_errors
from contract.dicom_kind import MR_SOP_CLASSES
from contract.dicom_pixels import IN_PROCESS, SANDBOXED
from contract.dicom_values import (
    CONTRASTS,
    MAPS,
    OF_DIFFUSION,
    OF_ENHANCED,
    PROJECTIONS,
    SHORT_MAPS,
)
from contract.errors import DecodeError, DicomError
from contract.policy import DEFAULT_DECODER_SECONDS, Checks
from contract.sandbox import DEFAULT_MEMORY_BYTES
from service import errors as service_errors
from service.archives import MAX_RATIO
from service.errors import UnusableZip
from service.settings import Settings
from tests.contract.samples import LOSSY, SYNTAXES

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "dicom-input.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def uids(text: str) -> set[str]:
    return set(re.findall(r"1\.2\.840\.10008[0-9.]*\d", text))


def test_every_transfer_syntax_that_is_read_is_in_the_table() -> None:
    named = uids(section("Transfer syntaxes"))
    native = {uid for uid in map(UID, named) if not uid.is_compressed or uid.is_deflated}
    assert ImplicitVRLittleEndian in native
    assert named - native == {*IN_PROCESS, *SANDBOXED}
    tested = {*SYNTAXES.values(), *LOSSY.values(), *IN_PROCESS}
    assert named - tested == {"1.2.840.10008.1.2.4.51"}, "whose stream is one of a file of pydicom"


def test_every_sop_class_that_is_accepted_is_in_the_table() -> None:
    assert uids(section("SOP classes")) == set(MR_SOP_CLASSES)


def test_every_value_of_what_is_no_slice_of_tissue_is_in_the_table() -> None:
    named: dict[tuple[str, str], set[str]] = {}
    text = section("Checks").split("\n### What is no slice of tissue\n")[1]
    for cell, code in re.findall(r"^\| (.+?) \|.+\| `(\w+)` \|$", text, re.MULTILINE):
        for part in cell.split("; "):
            place, _, values = part.rpartition(": ")
            named.setdefault((code, place), set()).update(values.split(", "))
    assert named == {
        ("localizer", ""): PROJECTIONS,
        ("not_magnitude", ""): MAPS,
        ("not_magnitude", "third or fourth"): SHORT_MAPS,
        ("not_magnitude", "from the fourth on"): OF_ENHANCED,
        ("not_magnitude", "fourth"): CONTRASTS,
        ("not_magnitude", "fourth after DIFFUSION or itself"): OF_DIFFUSION,
    }


def test_every_code_is_explained() -> None:
    kinds = [*vars(contract_errors).values(), *vars(service_errors).values()]
    known = {
        kind.code
        for kind in kinds
        if isinstance(kind, type)
        and issubclass(kind, DecodeError | UnusableZip)
        and kind not in {DecodeError, DicomError, UnusableZip, contract_errors.DecoderFailed}
    }
    # A file with frames is refused only where a single slice is asked for, and that is not here.
    known -= {"multi_frame"}
    table = re.compile(r"^\| `([a-z_0-9]+)` \|", re.MULTILINE)
    series = section("A series in one request").split("```json")[0]
    named = {*table.findall(section("Errors")), *table.findall(series)}
    assert known <= named
    assert named - known == {"zip_too_large", "too_many_files"}


def test_every_setting_and_figure_is_that_of_the_code() -> None:
    for name in re.findall(r"BRAIN_([A-Z_]+)", TEXT):
        assert name.lower() in Settings.model_fields
    for checks in Checks:
        assert f"`{checks}`" in section("Checks")
    assert Settings.model_fields["dicom_checks"].default is Checks.STRICT
    assert Settings.model_fields["decoder_timeout_ms"].default == DEFAULT_DECODER_SECONDS * 1000
    assert DEFAULT_MEMORY_BYTES == 2**30
    assert "1 GiB" in TEXT
    assert f"{MAX_RATIO} times its size" in TEXT


def test_links_lead_somewhere() -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / "docs" / path).exists()
