"""GDCM's encoders, in a process of their own, as what they leave behind may end the one they run in."""

import json
from typing import Any

import gdcm
import numpy as np
from numpy.typing import NDArray

from contract.sandbox import Sandbox

SECONDS = 60.0


def compress(values: NDArray[Any], syntax: str, bits_stored: int) -> bytes:
    """The stream of one frame.

    Args:
        values: (rows, columns) or (rows, columns, 3), uint8, int8, uint16 or int16.
        syntax: UID of a JPEG, JPEG-LS or JPEG 2000 transfer syntax.
        bits_stored: of a value.
    """
    head = {
        "rows": values.shape[0],
        "columns": values.shape[1],
        "samples": 1 if values.ndim == 2 else 3,
        "bits_allocated": 8 * values.itemsize,
        "bits_stored": bits_stored,
        "signed": values.dtype.kind == "i",
        "syntax": syntax,
    }
    little = values.astype(values.dtype.newbyteorder("<"))
    message = json.dumps(head).encode() + b"\n" + np.ascontiguousarray(little).tobytes()
    return ENCODERS.call(message, 2 * values.nbytes + 4096, seconds=SECONDS)


def encode(message: bytes) -> bytes:
    """:func:`compress`, within the process."""
    line, values = message.split(b"\n", 1)
    head = json.loads(line)
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((head["columns"], head["rows"], 1))
    kind = gdcm.PhotometricInterpretation.GetPIType("RGB" if head["samples"] > 1 else "MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    bits = head["bits_stored"]
    image.SetPixelFormat(
        gdcm.PixelFormat(
            head["samples"], head["bits_allocated"], bits, bits - 1, int(head["signed"])
        )
    )
    image.SetPlanarConfiguration(0)
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(values)
    image.SetDataElement(element)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(head["syntax"])))
    change.SetInput(image)
    if not change.Change():
        raise ValueError(head["syntax"])
    fragments = change.GetOutput().GetDataElement().GetSequenceOfFragments()
    stream: bytes = (
        fragments.GetFragment(0).GetByteValue().GetBuffer().encode("utf-8", "surrogateescape")
    )
    # GDCM's objects are not counted right from here on; the process must end before they do.
    KEPT.extend([image, element, change, fragments])
    return stream


KEPT: list[Any] = []
ENCODERS = Sandbox("tests.support.encoding:encode")
