"""A study of MR images made of JPEG slices, with the geometry of a scan; for the demo."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

FIELD_OF_VIEW_MM: Final = 230.0
SPACING_MM: Final = 6.0


def write_study(folder: Path, series: dict[str, Sequence[Path]]) -> list[Path]:
    """Writes a study into a folder; the files.

    Args:
        folder: of the files.
        series: description to the JPEG files of its slices, the lowest first.
    """
    study, frame = generate_uid(), generate_uid()
    files = []
    for number, (description, slices) in enumerate(series.items(), 1):
        uid = generate_uid()
        for index, path in enumerate(slices, 1):
            dataset = _image(np.asarray(Image.open(path).convert("L")), index)
            dataset.StudyInstanceUID = study
            dataset.SeriesInstanceUID = uid
            dataset.FrameOfReferenceUID = frame
            dataset.SeriesNumber = number
            dataset.SeriesDescription = description
            file = folder / f"{number}-{index}.dcm"
            dataset.save_as(file, enforce_file_format=True)
            files.append(file)
    return files


def _image(pixels: np.ndarray, index: int) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.PatientName = "Demo^Brain"
    dataset.PatientID = "DEMO-1"
    dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.StudyDate = dataset.StudyTime = dataset.StudyID = dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "MR brain"
    dataset.Modality = "MR"
    dataset.Manufacturer = "Scanner"
    dataset.BodyPartExamined = "BRAIN"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    dataset.InstanceNumber = index
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    side = -FIELD_OF_VIEW_MM / 2
    dataset.ImagePositionPatient = [side, side, index * SPACING_MM]
    dataset.PixelSpacing = [round(FIELD_OF_VIEW_MM / size, 4) for size in pixels.shape]
    dataset.SliceThickness = 5
    dataset.SpacingBetweenSlices = SPACING_MM
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    dataset.WindowCenter, dataset.WindowWidth = 128, 256
    dataset.PixelData = pixels.astype("<u2").tobytes()
    return dataset
