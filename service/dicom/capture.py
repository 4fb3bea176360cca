"""The most suspicious slice as a picture that every viewer shows: a Secondary Capture."""

from typing import Final

import numpy as np
from highdicom.sc import SCImage
from pydicom import Dataset
from pydicom.sr.codedict import codes as dictionary
from pydicom.uid import ExplicitVRLittleEndian

from contract.answer import Decision
from service.dicom.drawing import WARNING, Caption, draw
from service.dicom.findings import DISCLAIMER, class_words
from service.dicom.making import Kind, Making
from service.dicom.source import Plane

WORDS: Final = {
    Decision.TUMOR: "tumor suspected",
    Decision.NO_TUMOR: "no tumor detected",
    Decision.REFER: "indeterminate",
}

_AXES: Final = (("L", "R"), ("P", "A"), ("H", "F"))
"""Directions in which x, y and z grow and shrink (DICOM PS3.3 2024e, C.7.6.1.1.1)."""

_OBLIQUE: Final = 0.1
"""Direction cosines below this add no letter to a direction."""


def capture(making: Making) -> SCImage:
    """The picture of a series' most suspicious slice, whether something was found in it or not.

    Raises:
        ValueError: that slice has no grey levels.
    """
    leading = making.findings.leading
    if leading.pixels is None:
        raise ValueError("the most suspicious slice needs its grey levels")
    image = making.source.images[leading.sop_instance_uid]
    mask, box = (leading.mask, leading.box) if leading.suspicious else (None, None)
    picture = draw(leading.pixels, mask, box, (image.rows, image.columns), _above(), _below(making))
    plane = image.plane(leading.frame)
    made = SCImage(
        pixel_array=np.ascontiguousarray(picture),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        # Set below; highdicom insists on one.
        patient_orientation=("L", "P"),
        study_instance_uid=making.source.study_uid,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **making.arguments(Kind.CAPTURE),
    )
    # Drawn here; highdicom takes every picture for one that came over an interface.
    made.ConversionType = "WSD"
    made.PatientOrientation = _orientation(plane) if plane else []
    made.BodyPartExamined = "BRAIN"
    made.BurnedInAnnotation = "YES"
    made.DerivationDescription = (
        f"Slice with the region found by {making.model.label}. {DISCLAIMER}."
    )
    made.SourceImageSequence = [_source(making)]
    making.mark_lossy(made, [image])
    making.finish(made)
    made.DateOfSecondaryCapture = made.ContentDate
    made.TimeOfSecondaryCapture = made.ContentTime
    return made


def _above() -> list[Caption]:
    return [Caption(DISCLAIMER.upper(), WARNING), Caption("Result of research software")]


def _below(making: Making) -> list[Caption]:
    findings, leading, model = making.findings, making.findings.leading, making.model
    number = findings.most_suspicious + 1
    label = leading.label
    share = leading.probabilities[label]
    return [
        Caption(
            f"Series: {WORDS[findings.decision]}, "
            f"tumor probability {findings.tumor_probability:.1%}"
        ),
        Caption(
            f"This slice ({number} of {len(findings.slices)}): "
            f"tumor {leading.tumor_probability:.1%}, {class_words(label)} {share:.1%}"
        ),
        Caption(f"Model {model.label}, manifest {model.manifest_digest[:16]}"),
    ]


def _source(making: Making) -> Dataset:
    leading = making.findings.leading
    image = making.source.images[leading.sop_instance_uid]
    purpose = dictionary.DCM.SourceImageForImageProcessingOperation
    code = Dataset()
    code.CodeValue = purpose.value
    code.CodingSchemeDesignator = purpose.scheme_designator
    code.CodeMeaning = purpose.meaning
    source = Dataset()
    source.ReferencedSOPClassUID = image.sop_class_uid
    source.ReferencedSOPInstanceUID = image.sop_instance_uid
    if image.multi_frame:
        source.ReferencedFrameNumber = leading.frame
    source.PurposeOfReferenceCodeSequence = [code]
    return source


def _orientation(plane: Plane) -> list[str]:
    """Where the rows and the columns lead to, in letters."""
    return [_letters(plane.orientation[:3]), _letters(plane.orientation[3:])]


def _letters(direction: tuple[float, ...]) -> str:
    axes = sorted(range(3), key=lambda axis: -abs(direction[axis]))
    return "".join(
        _AXES[axis][direction[axis] < 0] for axis in axes if abs(direction[axis]) > _OBLIQUE
    )
