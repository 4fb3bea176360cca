"""What :mod:`service.dicom.workshop` runs in a process of its own: from a task to written objects."""

import io
import pickle
import traceback
from datetime import datetime

import numpy as np
from pydicom import Dataset
from pydicom.uid import MRImageStorage

from contract.answer import Decision
from service.dicom.findings import ModelIdentity, SeriesFindings, SliceFinding
from service.dicom.objects import make as make_objects
from service.dicom.results import Failed, MadeObject, pack
from service.dicom.task import Task


def make(message: bytes) -> bytes:
    """Makes the objects of a pickled task; :func:`service.dicom.results.unpack` reads the answer."""
    try:
        # The service wrote it: nothing of it was pickled elsewhere.
        return pack([_written(item) for item in make_objects(pickle.loads(message))])  # noqa: S301
    except Exception as error:  # noqa: BLE001 - its text stays here
        return pack(Failed(type(error).__name__, "".join(traceback.format_tb(error.__traceback__))))


def _written(item: Dataset) -> MadeObject:
    file = io.BytesIO()
    item.save_as(file, enforce_file_format=True)
    return MadeObject(
        str(item.Modality), str(item.SOPClassUID), str(item.SOPInstanceUID), file.getvalue()
    )


def _warm_up() -> None:
    """Makes objects of a made-up slice, since highdicom reads its tables of the standard on first use.

    Each task is done in a fork of the process that has imported this module, which is as warm.
    """
    header = Dataset()
    header.SOPClassUID = MRImageStorage
    header.SOPInstanceUID, header.SeriesInstanceUID, header.StudyInstanceUID = "1.2", "1.3", "1.4"
    header.FrameOfReferenceUID = "1.5"
    header.Rows = header.Columns = 8
    header.ImagePositionPatient = [0, 0, 0]
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.PixelSpacing = [1, 1]
    header.SliceThickness = 1
    finding = SliceFinding(
        header.SOPInstanceUID,
        1,
        "glioma",
        {"glioma": 1.0},
        1.0,
        Decision.TUMOR,
        mask=np.ones((8, 8), np.bool_),
        pixels=np.zeros((8, 8), np.uint8),
    )
    model = ModelIdentity("warm-up", 1, "0" * 64)
    created = datetime(2000, 1, 1).astimezone()
    task = Task.of([header], SeriesFindings.of_single(finding), model, created=created)
    for item in make_objects(task):
        _written(item)


_warm_up()
