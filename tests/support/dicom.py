"""DICOM files of datasets."""

import io

from pydicom import Dataset


def encoded(dataset: Dataset) -> bytes:
    """The file of a dataset with file meta information."""
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()
