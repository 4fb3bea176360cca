"""GDCM's decoders, for a process of their own: see :mod:`contract.sandbox`.

Imports nothing but GDCM and the standard library, so that the process starts at once and stays small.
"""

import json

import gdcm


def decode(message: bytes) -> bytes:
    """Decompresses one frame.

    Args:
        message: a line of JSON (``syntax``, ``rows``, ``columns``, ``samples``, ``planar``,
            ``bits_allocated``, ``bits_stored``, ``signed``, ``photometric``), then the stream.

    Returns:
        Values of ``bits_allocated`` bits, little endian, those of a pixel side by side.
    """
    line, stream = message.split(b"\n", 1)
    form = json.loads(line)
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((form["columns"], form["rows"], 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(form["photometric"])
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    if form["samples"] > 1:
        image.SetPlanarConfiguration(form["planar"])
    syntax = gdcm.TransferSyntax.GetTSType(form["syntax"])
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    bits = form["bits_stored"]
    image.SetPixelFormat(
        gdcm.PixelFormat(
            form["samples"], form["bits_allocated"], bits, bits - 1, int(form["signed"])
        )
    )
    # Bytes come out of GDCM as text.
    values: bytes = image.GetBuffer().encode("utf-8", "surrogateescape")
    return values
