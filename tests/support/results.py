"""Findings on real MR objects, and what other tools say of the objects that are made of them."""

import io
import subprocess
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
from highdicom.legacy import LegacyConvertedEnhancedMRImage
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian

from contract.answer import Decision
from contract.decoding import decode
from service.dicom.findings import Box, ModelIdentity, SeriesFindings, SliceFinding
from service.dicom.headers import read_header
from service.dicom.objects import build
from service.dicom.uids import UUID_ROOT
from tests.support.dicom import encoded
from tests.support.programs import needs

DICOM = Path(__file__).parents[1] / "data" / "dicom"
SAGITTAL = DICOM / "siemens_mprage_sagittal_0096.dcm"
AXIAL = DICOM / "axial_t1_defaced_0220.dcm"
SMALL = Path(pydicom.__file__).parent / "data" / "test_files" / "MR_small.dcm"

MODEL = ModelIdentity("brain-tumor", 1, "0123456789abcdef" * 4)
CREATED = datetime(2026, 3, 1, 12, 30, 15).astimezone()

needs_tools = needs("dciodvfy", "dsrdump", "dcmdump")
"""Of Debian's packages dicom3tools and dcmtk."""


def ellipse(rows: int, columns: int, centre: tuple[float, float] = (0.4, 0.6)) -> NDArray[np.bool_]:
    """A mask that no flip or transposition maps onto itself."""
    row, column = np.mgrid[0:rows, 0:columns]
    across = (row / rows - centre[0]) / 0.08
    along = (column / columns - centre[1]) / 0.15
    mask: NDArray[np.bool_] = across**2 + along**2 < 1
    return mask


def box_of(mask: NDArray[np.bool_]) -> Box:
    """The box around a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def finding(
    header: Dataset,
    decision: Decision = Decision.TUMOR,
    frame: int = 1,
    tumor: float = 0.9,
    mask: bool = True,
    pixels: NDArray[np.uint8] | None = None,
    offset: int = 0,
) -> SliceFinding:
    """What a model might say of a slice; another frame or offset has another mask."""
    centre = 0.4, 0.5 + 0.01 * (frame + offset)
    shape = ellipse(header.Rows, header.Columns, centre)
    probabilities = {
        "glioma": round(tumor - 0.03, 6),
        "meningioma": 0.02,
        "notumor": round(1 - tumor, 6),
        "pituitary": 0.01,
    }
    return SliceFinding(
        header.SOPInstanceUID,
        frame,
        max(probabilities, key=probabilities.__getitem__),
        probabilities,
        tumor,
        decision,
        mask=shape if mask else None,
        box=box_of(shape),
        pixels=np.zeros((header.Rows, header.Columns), np.uint8) if pixels is None else pixels,
    )


def series_of(findings: Sequence[SliceFinding], failed: int = 0) -> SeriesFindings:
    """The series of some findings, the most suspicious one deciding."""
    best = max(range(len(findings)), key=lambda index: findings[index].tumor_probability)
    leading = findings[best]
    return SeriesFindings(
        tuple(findings),
        leading.tumor_probability,
        leading.decision,
        best,
        "that of its most suspicious slice",
        failed,
    )


def results(
    headers: Sequence[Dataset], findings: SeriesFindings, uid_root: str = UUID_ROOT
) -> list[Dataset]:
    """The objects, at a fixed time."""
    return list(build(headers, findings, MODEL, uid_root, CREATED))


def of_file(path: Path, decision: Decision = Decision.TUMOR, mask: bool = True) -> list[Dataset]:
    """The objects of a single-frame file, with its true pixels."""
    data = path.read_bytes()
    header = read_header(data)
    said = finding(header, decision, mask=mask, pixels=decode(data).pixels)
    return results([header], series_of([said]))


@cache
def shifted(count: int = 5) -> tuple[bytes, ...]:
    """A volume of parallel slices: a real one, moved along its normal in steps of 1.5 mm."""
    files = []
    for number in range(count):
        dataset = dcmread(SAGITTAL)
        row, column = np.reshape(dataset.ImageOrientationPatient, (2, 3)).astype(float)
        moved = np.asarray(dataset.ImagePositionPatient, float) + 1.5 * number * np.cross(
            row, column
        )
        dataset.ImagePositionPatient = [f"{value:.6f}" for value in moved]
        dataset.SOPInstanceUID = f"{dataset.SeriesInstanceUID[:40]}.{number + 1}"
        dataset.InstanceNumber = number + 1
        dataset.PatientName = "Doe^Jane"
        files.append(encoded(dataset))
    return tuple(files)


@cache
def enhanced(legacy: bool) -> bytes:
    """The same volume as one multi-frame object."""
    sources = [dcmread(io.BytesIO(data)) for data in shifted()]
    made = LegacyConvertedEnhancedMRImage(sources, "1.2.3.4.5", 7, "1.2.3.4.6", 1)
    if not legacy:
        made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return encoded(made)


SAID = (
    (Decision.NO_TUMOR, 0.1),
    (Decision.TUMOR, 0.82),
    (Decision.NO_TUMOR, 0.1),
    (Decision.NO_TUMOR, 0.1),
    (Decision.TUMOR, 0.85),
)
"""Decision and tumour probability of the slices of a volume, two of which stand out."""


def volume(mask: bool = True, failed: int = 0) -> list[Dataset]:
    """Results of five single-frame images, two of which stand out."""
    headers = [read_header(data) for data in shifted()]
    said = [
        finding(header, decision, tumor=tumor, mask=mask)
        for header, (decision, tumor) in zip(headers, SAID, strict=True)
    ]
    return results(headers, series_of(said, failed))


def multi_frame(legacy: bool, lost: Collection[int] = ()) -> list[Dataset]:
    """Results of the same volume in one object, of which some frames could not be predicted."""
    header = read_header(enhanced(legacy))
    said = [
        finding(header, decision, frame, tumor)
        for frame, (decision, tumor) in enumerate(SAID, 1)
        if frame not in lost
    ]
    return results([header], series_of(said, len(lost)))


def complaints(dataset: Dataset, folder: Path) -> list[str]:
    """What dciodvfy calls an error in an object, and a line for each tool that cannot read it."""
    path = folder / "object.dcm"
    path.write_bytes(encoded(dataset))
    checked = _run("dciodvfy", str(path))
    found = [line for line in checked.stderr.splitlines() if line.startswith("Error")]
    if not checked.stderr.strip():
        found.append("dciodvfy says nothing")
    for reader in ("dcmdump", *(["dsrdump"] if dataset.Modality == "SR" else [])):
        done = _run(reader, str(path))
        found += [f"{reader}: {line}" for line in done.stderr.splitlines() if line[:2] != "W:"]
        if done.returncode != 0 or not done.stdout:
            found.append(f"{reader}: exit status {done.returncode}")
    return found


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=False
    )


Maker = Callable[[], list[Dataset]]
