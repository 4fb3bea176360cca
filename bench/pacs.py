"""Images of every transfer syntax through Orthanc, the service, and back; nothing may be lost.

usage: python -m bench.pacs [--instances 1000] [--series 40]

Real slices, each encoded in every syntax that there is an encoder for, are copied with new UIDs into
series that mix them all. Orthanc gets them over its REST API, as fast as it takes them, and forwards
each series when it is stable; the service's results come back by STOW-RS. The time is that from the
first image to the last result. Exits with 1 where an image is in no report, or in two.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    generate_uid,
)

from bench.machine import busy_share, describe
from bench.processes import take_charge
from bench.terminal import positive, say
from scripts.orthanc import ROOT, Orthanc, missing
from scripts.pacs_demo import service
from scripts.ports import free_port
from tests.support.encoding import compress

SOURCES: Final = sorted((ROOT / "tests" / "data" / "dicom").glob("*.dcm"))

NATIVE: Final = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
COMPRESSED: Final = (
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
)
"""What GDCM writes; the others are dcmtk's and pydicom's."""

BITS: Final = {JPEGBaseline8Bit: 8}
"""Bits of a pixel where a syntax cannot have the 12 of a scanner."""

PATIENCE_SECONDS: Final = 1800.0
UPLOADS_AT_A_TIME: Final = 4


def main() -> int:
    """Runs it and prints the rate."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.pacs", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--instances", type=positive, default=1000)
    parser.add_argument("--series", type=positive, default=40, help="at most")
    options = parser.parse_args()
    series = min(options.series, options.instances)
    take_charge()
    lacks = missing()
    if lacks:
        sys.stderr.write(f"{lacks}\n")
        return 1
    templates = [encoded(path) for path in SOURCES]
    for name, value in describe():
        say(f"{name}: {value}")
    say(f"Busy before: {busy_share():.0%}")
    say(f"{options.instances} instances in {series} series, evenly of:")
    for template in templates[0]:
        say(f"  {template.file_meta.TransferSyntaxUID.name}")
    with tempfile.TemporaryDirectory(prefix="bench-pacs-") as name:
        folder = Path(name)
        port = free_port()
        with Orthanc(folder, f"http://127.0.0.1:{port}") as orthanc, service(folder, port, orthanc):
            return run(orthanc, folder, templates, options.instances, series)


def run(
    orthanc: Orthanc,
    folder: Path,
    templates: Sequence[Sequence[Dataset]],
    instances: int,
    series: int,
) -> int:
    """Sends, waits and checks."""
    files = dict(copies(templates, instances, series))
    sent = list(files)
    began = time.monotonic()
    with ThreadPoolExecutor(UPLOADS_AT_A_TIME) as pool:
        list(pool.map(lambda content: orthanc.upload([content]), files.values()))
    uploaded = time.monotonic() - began
    end = began + PATIENCE_SECONDS
    while (found := reports(orthanc)) < series and time.monotonic() < end:
        time.sleep(0.5)
    seconds = time.monotonic() - began
    reported = Counter(sop for report in download(orthanc) for sop in evidence(report))
    lost = [sop for sop in sent if reported[sop] == 0]
    twice = [sop for sop in sent if reported[sop] > 1]
    failed = [
        line
        for line in map(json.loads, (folder / "audit.log").read_text("utf-8").splitlines())
        if line["action"] == "analyse" and line["result"] not in LABELS
    ]
    say(
        f"stored in Orthanc after {uploaded:.1f} s; all {found} reports there after {seconds:.1f} s: "
        f"{len(sent) / seconds:.1f} instances/s"
    )
    say(f"lost {len(lost)}, reported twice {len(twice)}, not readable {len(failed)}")
    return 1 if lost or twice or failed or found != series else 0


LABELS: Final = frozenset({"glioma", "meningioma", "notumor", "pituitary"})


def encoded(path: Path) -> list[Dataset]:
    """A real image in each syntax."""
    rle = native(path, ExplicitVRLittleEndian)
    rle.compress(RLELossless, generate_instance_uid=False)
    return [
        *(native(path, syntax) for syntax in NATIVE),
        rle,
        extended(path),
        *(compressed(path, syntax) for syntax in COMPRESSED),
    ]


def native(path: Path, syntax: UID) -> Dataset:
    """A real image as unsigned 12-bit values, not compressed."""
    dataset = read(path)
    values = np.clip(dataset.pixel_array, 0, 4095).astype(np.uint16)
    set_form(dataset, 16, 12)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    dataset.PixelData = values.astype(f"{order}u2").tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def compressed(path: Path, syntax: UID) -> Dataset:
    """A real image, compressed."""
    dataset = read(path)
    bits = BITS.get(syntax, 12)
    values = np.clip(dataset.pixel_array, 0, 4095).astype(np.uint16)
    if bits == 8:
        values = (values.astype(np.float64) * 255 / max(1, values.max())).astype(np.uint8)
        for keyword in ("WindowCenter", "WindowWidth"):
            if keyword in dataset:
                delattr(dataset, keyword)
    set_form(dataset, 8 * values.itemsize, bits)
    dataset.PixelData = encapsulate([compress(values, str(syntax), bits)])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def read(path: Path) -> Dataset:
    """A real image, free of the encoding that it was read in."""
    original = dcmread(path)
    original.remove_private_tags()
    dataset = Dataset()
    for element in original:
        dataset.add(element)
    dataset.file_meta = original.file_meta
    return dataset


def extended(path: Path) -> Dataset:
    """A real image as 12-bit JPEG, which dcmtk writes."""
    with tempfile.TemporaryDirectory() as name:
        plain, packed = Path(name) / "plain.dcm", Path(name) / "packed.dcm"
        native(path, ExplicitVRLittleEndian).save_as(plain, enforce_file_format=True)
        subprocess.run(["dcmcjpeg", "+ee", plain, packed], check=True)  # noqa: S603, S607
        return dcmread(packed)


def set_form(dataset: Dataset, allocated: int, stored: int) -> None:
    """The pixels are unsigned and have so many bits."""
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, stored, stored - 1
    dataset.PixelRepresentation = 0
    for keyword in ("SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue"):
        if keyword in dataset:
            delattr(dataset, keyword)


def copies(
    templates: Sequence[Sequence[Dataset]], instances: int, series: int
) -> Iterator[tuple[str, bytes]]:
    """SOP instance UID and file of each image; a series is of one real image in all syntaxes."""
    groups = [(generate_uid(), generate_uid(), generate_uid()) for _ in range(series)]
    for number in range(instances):
        group = number * series // instances
        study, uid, frame = groups[group]
        kinds = templates[group % len(templates)]
        template = kinds[number % len(kinds)]
        template.StudyInstanceUID, template.SeriesInstanceUID = study, uid
        template.FrameOfReferenceUID = frame
        template.SOPInstanceUID = generate_uid()
        template.file_meta.MediaStorageSOPInstanceUID = template.SOPInstanceUID
        template.InstanceNumber = number + 1
        template.ImagePositionPatient = [0, 0, number]
        template.PatientID = "BENCH"
        file = io.BytesIO()
        template.save_as(file, enforce_file_format=True)
        yield template.SOPInstanceUID, file.getvalue()


def reports(orthanc: Orthanc) -> int:
    """Structured reports that Orthanc holds."""
    return sum(len(one.instances) for one in orthanc.reports())


def download(orthanc: Orthanc) -> Iterator[Dataset]:
    """All of them."""
    for one in orthanc.reports():
        for instance in one.instances:
            yield dcmread(io.BytesIO(orthanc.file(instance)))


def evidence(report: Dataset) -> Iterator[str]:
    """SOP instance UIDs of the images that a report is about."""
    for study in report.CurrentRequestedProcedureEvidenceSequence:
        for one in study.ReferencedSeriesSequence:
            for image in one.ReferencedSOPSequence:
                yield image.ReferencedSOPInstanceUID


if __name__ == "__main__":
    sys.exit(main())
