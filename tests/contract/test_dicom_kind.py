"""Which objects are predicted, and as which the others are refused, at each strictness."""

import io
from contextlib import nullcontext
from typing import Any

import pytest
from pydicom import DataElement, Dataset, dcmread
from pydicom.uid import (
    ComprehensiveSRStorage,
    CTImageStorage,
    EnhancedMRColorImageStorage,
    EnhancedMRImageStorage,
    EnhancedUSVolumeStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    MRSpectroscopyStorage,
    ParametricMapStorage,
    RawDataStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    UltrasoundImageStorage,
)

from contract.dicom import open_dicom
from contract.dicom_kind import HEAD_TERMS, NO_PART, OTHER_PARTS
from contract.errors import (
    DecodeError,
    Localizer,
    Mosaic,
    NoPixelData,
    NotAnImage,
    NotHead,
    NotMr,
    NotPatient,
    UnsupportedPixels,
    UnsupportedSopClass,
)
from contract.policy import Checks, Policy
from tests.contract.rendering import decoded, outcome
from tests.contract.samples import frame_type, grey_slice, mr_frames, mr_object

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


LOCALIZER = frame_type("ORIGINAL", "PRIMARY", "LOCALIZER", "NONE")
VOLUME = frame_type("ORIGINAL", "PRIMARY", "VOLUME", "NONE")


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
        *(
            (
                {"PixelData": None, keyword: GREY.astype(dtype).tobytes()},
                UnsupportedPixels,
                UnsupportedPixels,
                UnsupportedPixels,
            )
            for keyword, dtype in (("FloatPixelData", "<f4"), ("DoubleFloatPixelData", "<f8"))
        ),
        (
            {"SOPClassUID": ParametricMapStorage, "PixelData": None, "FloatPixelData": bytes(8)},
            UnsupportedSopClass,
            UnsupportedPixels,
            UnsupportedPixels,
        ),
        ({"FloatPixelData": bytes(8)}, None, None, None),
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
        ({"AnatomicRegionSequence": region("66720007")}, None, None, None),
        ({"AnatomicRegionSequence": []}, None, None, None),
        (enhanced("72696002"), NotHead, None, None),
        (enhanced("69536005"), None, None, None),
        # The body part goes first.
        ({"BodyPartExamined": "HEAD", **enhanced("72696002")}, None, None, None),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, Localizer, None, None),
        ({"SharedFunctionalGroupsSequence": [LOCALIZER]}, Localizer, None, None),
        ({"PerFrameFunctionalGroupsSequence": [LOCALIZER]}, Localizer, None, None),
        ({"SharedFunctionalGroupsSequence": [VOLUME]}, None, None, None),
        ({"PerFrameFunctionalGroupsSequence": [VOLUME]}, None, None, None),
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
        *("CEREBHEMISPHERE", "CEREBRALA", "LATVENTRICLE", "3RDVENTRICLE", "4THVENTRICLE"),
        *("3rd ventricle", "CIRCLEOFWILLIS", "THALAMUS", "MCA", "EYE", "EAR", "SCALP"),
        *("MRI BRAIN", "BRAIN W/WO", "BRAIN2", "MR SKULL BASE", "NECK HEAD", "Kopf nativ"),
        *("Schädel MRT", "BRAIN STEM", "BRAIN XYZ", "IACS", "HEADCOIL", "ENCEPHALUS"),
        *("CRANIOCEREBRAL", "NEUROHEAD", "PETROUS", "IACS W/WO"),
        *("BEYIN", "KAFA", "Kranial", "HLAVA", "MOZEK", "LEBKA", "KOPONYA", "AIVOT", "PÄÄ"),
        *("CREIER", "GLAVA", "MOZAK", "HYPOPHYSE", "ORBITA", "HIPPOCAMPUS", "FRONTAL LOBE"),
        *("CORPUS CALLOSUM", "TRIGEMINAL", "INTERNAL AUDITORY CANAL"),
        *("MRBRAIN", "MRHEAD", "BRAINMR", "BRAINWWO", "BRAIN_WO", "HEADANGIO", "MRABRAIN", "MRIAC"),
    ],
)
@WRITES_ANYTHING
@pytest.mark.filterwarnings("ignore:The value length")
def test_spellings_of_a_head(part: str) -> None:
    assert outcome({"BodyPartExamined": part}, STRICT) is None


@pytest.mark.parametrize(
    "part",
    [
        *("SPINE", "CHEST", "WHOLEBODY", "LVENTRICLE", "FACE", "JAW", "VERTEBRALA", "OTHER", "XYZ"),
        *("BRAIN SPINE", "Head, C-Spine", "HEAD CHEST", "FEMORAL HEAD", "RADIAL HEAD", "HÜFTE"),
        *("MRI KNEE", "KNEE HEAD COIL", "NECK MRI", "Kopf HWS", "HEADSPINE"),
        *("MRSPINE BRAIN", "BRAIN MRCSPINE", "HEAD OF PANCREAS", "GLAVA FEMURA", "HLAVA PATER"),
        *("MRKNEE", "KNEEANGIO", "MRXHEAD", "HEADWOX", "BEYIN OMURGA"),
        *(
            "FETAL BRAIN",
            "FETUS",
            "FETUS HEAD",
            "BRAIN FOETAL",
            "CAPUT FEMORIS HEAD",
            "KNEE HEADCOIL",
        ),
    ],
)
@WRITES_ANYTHING
@pytest.mark.filterwarnings("ignore:The value length")
def test_other_parts_and_more_than_a_head(part: str) -> None:
    assert outcome({"BodyPartExamined": part}, STRICT) is NotHead


SAYS_NOTHING = ["UNKNOWN", "unknown ", "UNSPECIFIED", "NOT SPECIFIED", "N/A", "MRI", " ", "7"]


@pytest.mark.parametrize("part", SAYS_NOTHING)
@WRITES_ANYTHING
def test_where_no_part_is_named_the_code_counts(part: str) -> None:
    assert outcome({"BodyPartExamined": part}, STRICT) is None
    knee = {"BodyPartExamined": part, "AnatomicRegionSequence": region("72696002")}
    assert outcome(knee, STRICT) is NotHead


@pytest.mark.parametrize(
    ("charset", "encoding", "part", "refused"),
    [
        (None, "utf-8", "頭部", False),
        ("ISO_IR 192", "utf-8", "膝", False),
        ("ISO_IR 192", "utf-8", "頭部 MR", False),
        ("ISO_IR 192", "utf-8", "頭部 KNEE", True),
        ("ISO_IR 192", "utf-8", "Hüfte", True),
        ("ISO_IR 192", "utf-8", "Schädel", False),
        ("ISO_IR 192", "utf-8", "BEYİN", False),
        ("ISO_IR 192", "utf-8", "głowa", False),
        ("ISO_IR 144", "iso8859-5", "ГОЛОВА", False),
        ("GB18030", "gb18030", "头部", False),
        (["", "ISO 2022 IR 87"], "iso2022_jp", "頭部", False),
        ("ISO_IR 100", "latin-1", "Schädel", False),
        ("ISO_IR 100", "latin-1", "Hüfte", True),
    ],
)
@WRITES_ANYTHING
def test_a_text_in_another_alphabet_names_no_part(
    charset: str | list[str] | None, encoding: str, part: str, refused: bool
) -> None:
    """In whatever character set: letters that its bytes happen to resemble do not count."""
    raw = part.encode(encoding)
    raw += b" " * (len(raw) % 2)
    attributes = {"BodyPartExamined": "Q" * len(raw), "SpecificCharacterSet": charset}
    data = mr_object(GREY, attributes=attributes).replace(b"Q" * len(raw), raw)
    with pytest.raises(NotHead) if refused else nullcontext():
        decoded(data)


def test_terms_are_as_they_are_compared() -> None:
    terms = HEAD_TERMS | OTHER_PARTS | NO_PART
    assert all(term.isascii() and term.isalpha() and term.isupper() for term in terms)
    assert len(terms) == len(HEAD_TERMS) + len(OTHER_PARTS) + len(NO_PART)
    assert terms.isdisjoint({"NECK"})


def test_the_class_alone_is_enough_where_the_modality_is_wrong() -> None:
    attributes = {"Modality": "OT", "SOPClassUID": MRImageStorage, "BodyPartExamined": "KNEE"}
    assert outcome(attributes, LENIENT) is None


@pytest.mark.parametrize("checks", Checks)
def test_a_localizer_among_other_frames_leaves_them(checks: Checks) -> None:
    attributes = {"PerFrameFunctionalGroupsSequence": [VOLUME, LOCALIZER, VOLUME]}
    source = open_dicom(mr_frames([GREY] * 3, attributes=attributes), Policy(checks=checks))
    for frame in (1, 2, 3):
        with pytest.raises(Localizer) if (frame, checks) == (2, STRICT) else nullcontext():
            assert source.slice(frame).pixels.shape == GREY.shape


def test_an_object_of_localizers_is_refused_as_a_whole() -> None:
    attributes = {"PerFrameFunctionalGroupsSequence": [LOCALIZER] * 2}
    with pytest.raises(Localizer):
        open_dicom(mr_frames([GREY] * 2, attributes=attributes), Policy())


def text(value: str) -> list[Dataset]:
    """A code of which only the meaning is known."""
    code = Dataset()
    code.CodeMeaning = value
    return [code]


def species(value: str, meaning: str) -> list[Dataset]:
    (code,) = region(value)
    code.CodeMeaning = meaning
    return [code]


@pytest.mark.parametrize(
    "attributes",
    [
        {"PatientSpeciesDescription": "Canine"},
        {"PatientSpeciesDescription": "CANIS LUPUS FAMILIARIS"},
        {"PatientSpeciesDescription": "Non-human primate"},
        {"PatientSpeciesDescription": "phantom"},
        {"PatientSpeciesDescription": "adult dog"},
        {"PatientSpeciesDescription": "Other primate"},
        {"PatientSpeciesDescription": "Standard poodle"},
        {"PatientSpeciesDescription": "mouse, human xenograft"},
        {"PatientSpeciesDescription": "Cainne"},
        {"PatientSpeciesCodeSequence": species("9615", "Canis lupus familiaris")},
        {"PatientSpeciesCodeSequence": species("448771007", "")},
        {
            "PatientSpeciesDescription": "Patient",
            "PatientSpeciesCodeSequence": species("448771007", "dog"),
        },
        {"PatientSpeciesCodeSequence": species("448771007", "?")},
        {"PatientSpeciesCodeSequence": region("448771007")},
        {"PatientSpeciesCodeSequence": region("L-80700", "SRT")},
        {"PatientSpeciesCodeSequence": text("Felis catus")},
        {"PatientSpeciesDescription": "UNKNOWN", "PatientSpeciesCodeSequence": region("448771007")},
        {"QualityControlSubject": "YES"},
        {"QualityControlSubject": "yes "},
        {"QualityControlImage": "YES"},
    ],
    ids=str,
)
@WRITES_ANYTHING
def test_animals_and_phantoms(attributes: dict[str, Any]) -> None:
    assert outcome(attributes, STRICT) is NotPatient
    assert outcome(attributes, LENIENT) is None
    assert outcome(attributes, OFF) is None


@pytest.mark.parametrize(
    "attributes",
    [
        {"PatientSpeciesDescription": ""},
        *(
            {"PatientSpeciesDescription": species}
            for species in (
                "Homo sapiens",
                "HUMAN",
                "human, adult",
                "Homo sapiens sapiens",
                "Mensch",
                *(
                    "Person",
                    "Patient",
                    "man",
                    "woman",
                    "Homme",
                    "Persona",
                    "Adult",
                    "Volunteer",
                    "H",
                ),
                *("H. sapiens", "healthy volunteer", "Être humain", "Niño"),
            )
        ),
        *(
            {"PatientSpeciesDescription": none}
            for none in (
                *("UNKNOWN", "N/A", "not specified", "人", "Unbekannt", "inconnu", "desconocido"),
                *("Other", "N", "Standard", "?", "non renseigné"),
            )
        ),
        *(
            {"PatientSpeciesCodeSequence": species(value, meaning)}
            for value, meaning in (
                *(("9606", "Homo sapiens"), ("278412004", "Human"), ("C0086418", "Homo sapiens")),
                *(("X", "Person"), ("337915000", "h"), ("261665006", "Unknown"), ("", "")),
            )
        ),
        {"PatientSpeciesCodeSequence": region("337915000")},
        {"PatientSpeciesCodeSequence": region("L-85B00", "SRT")},
        {"PatientSpeciesCodeSequence": text("homo sapiens")},
        {"PatientSpeciesCodeSequence": []},
        # As good as none: it names what it is about in words, and the code is another one's.
        {"PatientSpeciesDescription": "Human", "PatientSpeciesCodeSequence": region("X1", "99X")},
        {"QualityControlSubject": "NO", "QualityControlImage": "NO"},
        {"QualityControlImage": "BOTH"},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:.*encod")
@WRITES_ANYTHING
def test_people(attributes: dict[str, Any]) -> None:
    attributes = {"SpecificCharacterSet": "ISO_IR 192"} | attributes
    assert outcome(attributes, STRICT) is None


@pytest.mark.parametrize("value", ["human", "canine", ["a", "b"], ""], ids=str)
def test_a_species_code_that_is_no_sequence_says_nothing(value: str | list[str]) -> None:
    dataset, data = dcmread(io.BytesIO(mr_object(GREY))), io.BytesIO()
    dataset[0x00102202] = DataElement(0x00102202, "LO", value)
    dataset.save_as(data)
    assert decoded(data.getvalue(), Policy()).pixels.shape == GREY.shape


@pytest.mark.parametrize(
    "description",
    [
        *("localizer", "LOCALISER", "localizer_3plane", "3-plane loc", "3 Plane Loc SSFSE", "LOC"),
        *("3PL LOC", "AX LOC", "Scout", "AAHead_Scout", "AAHead_Scout_MPR_sag", "AAHScout_64ch"),
        *("AAHEAD_SCOUT_32CH-HEAD-COIL_MPR_COR", "Survey", "SURVEY_SHC", "Survey_32ch_HeadCoil"),
        *(
            "HEAD SCOUT",
            "Brain localizer",
            "Localizers",
            "*localizer",
            "Plane Scout",
            "3-Plane-Scout",
        ),
        *(
            "localizer haste",
            "Lokalisator",
            "Localizador cerebro",
            "Localizer (repeat)",
            "MST Survey",
        ),
        *("Tri-Planar Localizer", "Localizer_aligned", "T/S/C RF FAST PILOT", "FAST LOCALIZER"),
    ],
)
@pytest.mark.parametrize("keyword", ["SeriesDescription", "ProtocolName"])
def test_localizers_by_their_description(keyword: str, description: str) -> None:
    """Image Type of a classic object does not say it."""
    assert outcome({keyword: description}, STRICT) is Localizer
    assert outcome({keyword: description}, LENIENT) is None
    assert outcome({keyword: description}, OFF) is None


@pytest.mark.parametrize(
    "attributes",
    [
        *(
            {"SeriesDescription": description}
            for description in (
                *("", "T1 MPRAGE after localizer", "post localizer T1", "T2 TSE (see localizer)"),
                *("T1 SE LOC", "local shim T1", "Brain survey", "Survey brain T1", "head LOC"),
                *("FLAIR dislocation", "allocator", "surveyor", "Boy scout study T1", "T1 scout"),
                *(
                    "MPRAGE localizer plane",
                    "stereotactic localizer T1",
                    "blocs",
                    "3-plane",
                    "Loc Ness",
                ),
                *("T1 MPRAGE for localization", "fMRI functional localizer", "visual localizer"),
                *(
                    "Localizer fMRI",
                    "metastasis survey",
                    "AX T1 +C LOC",
                    "T1 LOC",
                    "LOC T2",
                    "Pilot study",
                    "head pilot",
                    "SAG",
                    "plane",
                    "AX T2",
                ),
            )
        ),
        # Of a whole examination, on some scanners.
        {"SeriesDescription": "AX T1", "ProtocolName": "LOCALIZER"},
        {"ProtocolName": "Brain survey"},
        {"ProtocolName": "STROKE SURVEY"},
        {"ImageType": ["DERIVED", "SECONDARY", "MPR"]},
    ],
    ids=str,
)
@WRITES_ANYTHING
def test_what_mentions_a_localizer_and_is_none(attributes: dict[str, Any]) -> None:
    assert outcome(attributes, STRICT) is None


@pytest.mark.parametrize("term", ["SCOUT", "POSDISP"])
def test_localizers_by_their_image_type(term: str) -> None:
    assert outcome({"ImageType": ["DERIVED", "SECONDARY", term]}, STRICT) is Localizer
    assert outcome({"ImageType": ["DERIVED", "SECONDARY", term]}, LENIENT) is None
