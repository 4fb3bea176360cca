"""The header of an uploaded DICOM file: what its results are made of, and no pixels."""

import io
from typing import Final

from pydicom import Dataset, dcmread

from contract.quiet import quieten
from service.dicom import patient, source

KEYWORDS: Final = (*patient.KEYWORDS, *source.KEYWORDS)
"""What :func:`service.dicom.objects.build` needs."""


def read_header(data: bytes) -> Dataset:
    """Reads :data:`KEYWORDS` of a file that has been decoded before.

    Args:
        data: a whole DICOM file that :func:`contract.decoding.decode` has accepted, which bounds what a
            deflated one inflates to.
    """
    quieten()
    return dcmread(io.BytesIO(data), stop_before_pixels=True, specific_tags=list(KEYWORDS))
