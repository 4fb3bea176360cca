"""Which objects are predicted, and as which the others are refused, at each strictness."""

from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    CTImageStorage,
    EnhancedMRColorImageStorage,
    EnhancedMRImageStorage,
    EnhancedUSVolumeStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    MRSpectroscopyStorage,
    RawDataStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    UltrasoundImageStorage,
)

from contract.dicom_kind import HEAD_TERMS
from contract.errors import (
    DecodeError,
    Localizer,
    Mosaic,
    NoPixelData,
    NotAnImage,
    NotHead,
    NotMr,
    UnsupportedSopClass,
)
from contract.policy import Checks, Policy
from tests.contract.rendering import decoded
from tests.contract.samples import grey_slice, mr_object

GREY = grey_slice()
STRICT, LENIENT, OFF = Checks.STRICT, Checks.LENIENT, Checks.OFF

WRITES_ANYTHING = pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
"""So that pydicom writes what is no code string, as others do."""


def region(value: str, scheme: str = "SCT") -> list[Dataset]:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, "a region"
    return [code]


def enhanced(value: str) -> dict[str, Any]:
    """Where an enhanced object says which region it is of."""
    groups, anatomy = Dataset(), Dataset()
    anatomy.AnatomicRegionSequence = region(value)
    groups.FrameAnatomySequence = [anatomy]
    return {"SOPClassUID": EnhancedMRImageStorage, "SharedFunctionalGroupsSequence": [groups]}


def outcome(attributes: dict[str, Any], checks: Checks) -> type[DecodeError] | None:
    try:
        result = decoded(mr_object(GREY, attributes=attributes), Policy(checks=checks))
    except DecodeError as error:
        return type(error)
    assert result.pixels.shape == GREY.shape
    return None


@pytest.mark.parametrize(
    ("attributes", "strict", "lenient", "off"),
    [
        ({}, None, None, None),
        ({"SOPClassUID": EnhancedMRImageStorage}, None, None, None),
        ({"SOPClassUID": EnhancedMRColorImageStorage}, None, None, None),
        ({"SOPClassUID": LegacyConvertedEnhancedMRImageStorage}, None, None, None),
        ({"Modality": "CT", "SOPClassUID": CTImageStorage}, NotMr, NotMr, None),
        ({"Modality": "US", "SOPClassUID": UltrasoundImageStorage}, NotMr, NotMr, None),
        ({"Modality": "SEG", "SOPClassUID": SegmentationStorage}, NotMr, NotMr, None),
        ({"Modality": "OT", "SOPClassUID": SecondaryCaptureImageStorage}, NotMr, NotMr, None),
        ({"Modality": "CT"}, NotMr, None, None),
        ({"Modality": None}, NotMr, None, None),
        ({"Modality": " mr "}, None, None, None),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, UnsupportedSopClass, None, None),
        ({"SOPClassUID": MRSpectroscopyStorage}, UnsupportedSopClass, None, None),
        ({"SOPClassUID": None}, UnsupportedSopClass, None, None),
        ({"PixelData": None}, NoPixelData, NoPixelData, NoPixelData),
        ({"PixelData": b""}, NoPixelData, NoPixelData, NoPixelData),
        (
            {"SOPClassUID": ComprehensiveSRStorage, "Modality": "SR", "PixelData": None},
            NotAnImage,
            NotAnImage,
            NotAnImage,
        ),
        (
            {"SOPClassUID": MRSpectroscopyStorage, "PixelData": None},
            NotAnImage,
            NotAnImage,
            NotAnImage,
        ),
        ({"SOPClassUID": RawDataStorage, "PixelData": None}, NotAnImage, NotAnImage, NotAnImage),
        (
            {"SOPClassUID": EnhancedUSVolumeStorage, "PixelData": None},
            NotAnImage,
            NotAnImage,
            NotAnImage,
        ),
        (
            {"SOPClassUID": CTImageStorage, "Modality": "CT", "PixelData": None},
            NotMr,
            NotMr,
            NoPixelData,
        ),
        ({"BodyPartExamined": "KNEE"}, NotHead, None, None),
        ({"BodyPartExamined": "CSPINE"}, NotHead, None, None),
        ({"BodyPartExamined": "NECK"}, NotHead, None, None),
        ({"BodyPartExamined": ""}, None, None, None),
        ({"AnatomicRegionSequence": region("72696002")}, NotHead, None, None),
        ({"AnatomicRegionSequence": region("12738006")}, None, None, None),
        ({"AnatomicRegionSequence": region("T-D1100", "SRT")}, None, None, None),
        ({"AnatomicRegionSequence": []}, None, None, None),
        (enhanced("72696002"), NotHead, None, None),
        (enhanced("69536005"), None, None, None),
        # The body part goes first.
        ({"BodyPartExamined": "HEAD", **enhanced("72696002")}, None, None, None),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, Localizer, None, None),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}, Mosaic, Mosaic, Mosaic),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, None, None, None),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, None, None, None),
        ({"ImageType": "ORIGINAL"}, None, None, None),
        ({"ImageType": None}, None, None, None),
        ({"BurnedInAnnotation": "YES"}, None, None, None),
    ],
    ids=str,
)
@WRITES_ANYTHING
def test_kind(
    attributes: dict[str, Any],
    strict: type[DecodeError] | None,
    lenient: type[DecodeError] | None,
    off: type[DecodeError] | None,
) -> None:
    assert outcome(attributes, STRICT) is strict
    assert outcome(attributes, LENIENT) is lenient
    assert outcome(attributes, OFF) is off


@pytest.mark.parametrize(
    "part",
    [
        *("HEAD", "Brain", "SKULL", "HEADNECK", "HEAD_NECK", "HEAD AND NECK", "Head/Neck"),
        *("HEAD-NECK", "brain ", "PITUITARY", "SCHÄDEL", "Tête", "CRÂNE"),
    ],
)
@WRITES_ANYTHING
def test_spellings_of_a_head(part: str) -> None:
    assert outcome({"BodyPartExamined": part}, STRICT) is None


def test_terms_are_as_they_are_compared() -> None:
    assert all(term.isascii() and term.isalpha() and term.isupper() for term in HEAD_TERMS)
    assert HEAD_TERMS.isdisjoint({"NECK", "SPINE", "CSPINE", "WHOLEBODY", "KNEE"})


def test_the_class_alone_is_enough_where_the_modality_is_wrong() -> None:
    attributes = {"Modality": "OT", "SOPClassUID": MRImageStorage, "BodyPartExamined": "KNEE"}
    assert outcome(attributes, LENIENT) is None
