"""Which objects and frames are slices of tissue by what their values are, and which are none."""

import io
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from pydicom import DataElement, Dataset, dcmread
from pydicom.config import IGNORE
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    LegacyConvertedEnhancedMRImageStorage,
)

from contract.dicom import open_dicom
from contract.dicom_frames import frame_attributes
from contract.dicom_kind import check_frame
from contract.dicom_values import (
    CONTRASTS,
    MAPS,
    OF_DIFFUSION,
    OF_ENHANCED,
    PROJECTIONS,
    SHORT_MAPS,
)
from contract.errors import DecodeError, Localizer, NotMagnitude
from contract.policy import Checks, Policy
from tests.contract.rendering import outcome
from tests.contract.samples import frame_type, grey_slice, mr_frames, mr_object

GREY = grey_slice()
STRICT, LENIENT, OFF = Checks.STRICT, Checks.LENIENT, Checks.OFF

# So that pydicom writes what is no code string, as others do.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Invalid value for VR CS"),
    pytest.mark.filterwarnings("ignore:The value length .* allowed for VR CS"),
]


def image_type(text: str) -> dict[str, Any]:
    """As the file has it, its values between backslashes."""
    return {"ImageType": text.split("\\")}


def check(attributes: dict[str, Any], refusal: type[DecodeError] | None) -> None:
    assert outcome(attributes, STRICT) is refusal
    assert outcome(attributes, LENIENT) is None
    assert outcome(attributes, OFF) is None


INVERSION = {"ScanningSequence": ["SE", "IR"]}


@pytest.mark.parametrize(
    ("attributes", "refused"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, True),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "I", "ND"]}, True),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "R", "ND"]}, True),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"]}, True),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "VELOCITY MAP", "P", "PCA"]}, True),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "R_FFE", "R", "FFE"]}, True),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "I_SE", "I", "SE"]}, True),
        ({"ComplexImageComponent": "PHASE"}, True),
        ({"ComplexImageComponent": "IMAGINARY"}, True),
        ({"ComplexImageComponent": "REAL"}, True),
        ({"ComplexImageComponent": "PHASE", "ImageType": ["ORIGINAL", "PRIMARY", "M"]}, True),
        ({"ComplexImageComponent": "MAGNITUDE", "ImageType": ["ORIGINAL", "PRIMARY", "P"]}, False),
        ({"ComplexImageComponent": "MAGNITUDE"}, False),
        ({"ComplexImageComponent": "MIXED"}, False),
        ({"ComplexImageComponent": ""}, False),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "P"]}, False),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"]}, False),
        # The part that is none goes before a magnitude, whichever is first.
        *(({"ImageType": ["DERIVED", "PRIMARY", "M", part]}, True) for part in "PRI"),
        *(({"ImageType": ["DERIVED", "PRIMARY", part, "M"]}, True) for part in "PRI"),
        ({"ImageType": ["DERIVED", "PRIMARY", "MAGNITUDE", "PHASE"]}, True),
        ({"ImageType": ["DERIVED", "PRIMARY", "M", "R"], **INVERSION}, False),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "OTHER"]}, False),
        # The real part of an inversion recovery is a slice of tissue, as phase-sensitive ones are.
        ({"ImageType": ["ORIGINAL", "PRIMARY", "R", "ND"], **INVERSION}, False),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "R_IR", "R", "IR"]}, False),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "R", "PSIR"]}, False),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "CR_IR", "R", "IR"]}, False),
        ({"ComplexImageComponent": "REAL", **INVERSION}, False),
        ({"ComplexImageComponent": "REAL", "InversionRecovery": "YES"}, False),
        ({"ComplexImageComponent": "REAL", "InversionRecovery": "NO"}, True),
        ({"ComplexImageComponent": "REAL", "InversionTime": 350}, False),
        ({"ComplexImageComponent": "REAL", "InversionTimes": [0, 350]}, False),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "R"], "SeriesDescription": "t1_psir_tra"}, False),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "R"], "ProtocolName": "PSIR 3D"}, False),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "R"], "SeriesDescription": "t1_tra"}, True),
        ({"ComplexImageComponent": "REAL", "InversionTime": 0}, True),
        ({"ComplexImageComponent": "REAL", "InversionTime": ""}, True),
        ({"ComplexImageComponent": "REAL", "ScanningSequence": "SE"}, True),
        # Its other parts are none.
        ({"ComplexImageComponent": "PHASE", "InversionTime": 350}, True),
        ({"ComplexImageComponent": "PHASE", **INVERSION}, True),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "I", "ND"], **INVERSION}, True),
    ],
    ids=str,
)
def test_parts_of_complex_values_that_are_no_magnitude(
    attributes: dict[str, Any], refused: bool
) -> None:
    check(attributes, NotMagnitude if refused else None)


def component(name: str, *, inversion: bool = False, terms: tuple[str, ...] = ()) -> Dataset:
    """Functional groups of a frame that is a part of complex values."""
    groups = frame_type("ORIGINAL", "PRIMARY", *(terms or ("T1", "NONE")))
    groups.MRImageFrameTypeSequence[0].ComplexImageComponent = name
    if inversion:
        modifier = Dataset()
        modifier.InversionRecovery = "YES"
        groups.MRModifierSequence = [modifier]
    return groups


@pytest.mark.parametrize(
    ("groups", "refused"),
    [
        (component("PHASE"), True),
        (component("REAL"), True),
        (component("REAL", inversion=True), False),
        (component("MAGNITUDE", terms=("PHASE MAP", "NONE")), True),
        (component("", terms=("P", "NONE")), True),
        (component("MAGNITUDE"), False),
    ],
    ids=["phase", "real", "real inversion", "phase map", "P", "magnitude"],
)
@pytest.mark.parametrize("checks", Checks)
def test_frames_that_are_no_magnitude_leave_the_others(
    checks: Checks, groups: Dataset, refused: bool
) -> None:
    attributes = {
        "SOPClassUID": EnhancedMRImageStorage,
        # Of them all, which no frame has to be.
        "ComplexImageComponent": "MIXED",
        "ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP", "NONE"],
        "PerFrameFunctionalGroupsSequence": [component("MAGNITUDE"), groups],
    }
    source = open_dicom(mr_frames([GREY] * 2, attributes=attributes), Policy(checks=checks))
    for frame in (1, 2):
        is_refused = refused and checks is STRICT and frame == 2
        with pytest.raises(NotMagnitude) if is_refused else nullcontext():
            assert source.slice(frame).pixels.shape == GREY.shape


@pytest.mark.parametrize("place", ["Shared", "PerFrame"])
@pytest.mark.parametrize(
    ("unassigned", "refused"),
    [
        ({"ScanningSequence": ["SE", "IR"]}, False),
        ({"ScanningSequence": "RM", "InversionTime": 400}, False),
        ({"ScanningSequence": "SE"}, True),
    ],
    ids=str,
)
def test_the_real_part_of_a_converted_inversion_recovery(
    unassigned: dict[str, Any], place: str, refused: bool
) -> None:
    """What it has no functional group for is among the attributes that are not assigned to one."""
    shared, own, item = Dataset(), frame_type("ORIGINAL", "PRIMARY", "R", "NONE"), Dataset()
    for keyword, value in unassigned.items():
        setattr(item, keyword, value)
    groups = shared if place == "Shared" else own
    setattr(groups, f"Unassigned{place}ConvertedAttributesSequence", [item])
    attributes = {
        "SOPClassUID": LegacyConvertedEnhancedMRImageStorage,
        "SharedFunctionalGroupsSequence": [shared],
        "PerFrameFunctionalGroupsSequence": [own],
    }
    source = open_dicom(mr_frames([GREY], attributes=attributes), Policy())
    with pytest.raises(NotMagnitude) if refused else nullcontext():
        assert source.slice(1).pixels.shape == GREY.shape


def test_frames_that_say_nothing_are_what_the_object_says() -> None:
    attributes = {"SOPClassUID": EnhancedMRImageStorage, "ComplexImageComponent": "PHASE"}
    source = open_dicom(mr_frames([GREY] * 2, attributes=attributes), Policy(checks=LENIENT))
    assert source.slice(2).pixels.shape == GREY.shape
    with pytest.raises(NotMagnitude):
        open_dicom(mr_frames([GREY] * 2, attributes=attributes), Policy()).slice(2)


@pytest.mark.parametrize(
    "kind",
    [
        *(
            rf"DERIVED\PRIMARY\DIFFUSION\{value}"
            for value in (r"ADC\NORM\DIS2D", r"ADC\ND\DFC", r"FA\ND", r"EXP\ND\NORM", "TENSOR")
        ),
        *(r"ORIGINAL\PRIMARY\DIFFUSION\FA\NORM\DIS2D", r"ORIGINAL\PRIMARY\ADC\ND\NORM"),
        *(r"DERIVED\PRIMARY\ADC\ADC", r"DERIVED\SECONDARY\ADC", r"DERIVED\PRIMARY\FA\FA"),
        *(r"ORIGINAL\PRIMARY\ADC_SE\ADC\SE", r"ORIGINAL\PRIMARY\EADC_UNSPECIFIE\EADC\UNSPECIFIED"),
        *(r"DERIVED\PRIMARY\PERFUSION\RELCBF\DIS2D\MOCO", r"DERIVED\PRIMARY\PERFUSION\PBP\ND"),
        *(r"ORIGINAL\PRIMARY\PERFUSION\NONE\DIS2D\RELMTT", r"DERIVED\PRIMARY\ASL\PERFUSION_ASL"),
        *(r"DERIVED\SECONDARY\rCBV", r"DERIVED\SECONDARY\Tmax Basic", "DERIVED\\SECONDARY\\CBF\\"),
        *(r"DERIVED\PRIMARY\ASL\ND\NORM\SUB\TTEST", r"DERIVED\PRIMARY\OTHER\SUBTRACT"),
        r"DERIVED\PRIMARY\M\SWI\DIS3D\NORM\FM5_1\FIL\SUBTRACTION\MFSPLIT",
        *(r"DERIVED\SECONDARY\SUB", r"ORIGINAL\PRIMARY\M\ND\NORM\SUB"),
        *(r"DERIVED\SECONDARY\SUBTRACTION", r"DERIVED\PRIMARY\MODULUS SUBTRACT"),
        r"DERIVED\PRIMARY\M\ND\DIS2D\T2_MAP\MFSPLIT",
        *(r"DERIVED\SECONDARY\MTT", r"DERIVED\SECONDARY\OEF", r"DERIVED\PRIMARY\PERFUSION\TTP"),
        *(r"ORIGINAL\PRIMARY\T1 MAP\T1\UNSPECIFIED", r"ORIGINAL\PRIMARY\B0 MAP\B0\UNSPECIFIED"),
        *(r"DERIVED\PRIMARY\QMAP\T2", r"DERIVED\PRIMARY\MULTI_QMAP\T1"),
        *(r"DERIVED\PRIMARY\T2\T2_MAP", r"DERIVED\PRIMARY\DIXON\FIELD_MAP"),
        *(r"DERIVED\PRIMARY\VELOCITY\VELOCITY", r"DERIVED\PRIMARY\TEMPERATURE\TEMPERATURE"),
    ],
)
def test_maps_and_differences_are_no_slices_of_tissue(kind: str) -> None:
    check(image_type(kind), NotMagnitude)


@pytest.mark.parametrize("value", sorted(MAPS | SHORT_MAPS | OF_ENHANCED | CONTRASTS))
def test_every_term_of_a_map(value: str) -> None:
    """The fourth value is where the standard has it; a word that begins alike is none."""
    check(image_type(rf"DERIVED\PRIMARY\OTHER\{value}"), NotMagnitude)
    check(image_type(rf"DERIVED\PRIMARY\OTHER\{value.replace(' ', '')[:13]}_X"), None)


@pytest.mark.parametrize("value", sorted(PROJECTIONS))
def test_every_term_of_a_projection(value: str) -> None:
    check(image_type(rf"DERIVED\SECONDARY\{value}"), Localizer)
    check(image_type(rf"DERIVED\SECONDARY\OTHER\{value}\M\ND"), Localizer)


@pytest.mark.parametrize("value", ["MAX_IP", "MIN_IP", "VOLUME_RENDER", "SURFACE_RENDER"])
def test_projections_and_renderings_by_their_calculation(value: str) -> None:
    check({"VolumeBasedCalculationTechnique": value}, Localizer)


@pytest.mark.parametrize("value", ["NONE", "MPR", "CURVED_MPR", "MIXED", ""])
def test_reformats_by_their_calculation(value: str) -> None:
    check({"VolumeBasedCalculationTechnique": value}, None)


@pytest.mark.parametrize(
    "kind",
    [
        # Siemens: with or without corrections, filters, composing, several channels or contrasts.
        *(rf"ORIGINAL\PRIMARY\M\{history}" for history in ("ND", r"ND\NORM", "DIS2D", "DIS3D")),
        *(rf"ORIGINAL\PRIMARY\M\{history}" for history in (r"NORM\DIS2D\FM3_2\FIL", "RETRO", "P2")),
        *(r"ORIGINAL\PRIMARY\M\NORM\DIS2D\COMP_SP\COMPOSED", r"ORIGINAL\PRIMARY\MSUM\ND"),
        *(r"DERIVED\PRIMARY\M\DIS2D\NORM\MEAN\MFSPLIT", r"DERIVED\PRIMARY\M\ND\NORM\ADD"),
        *(r"DERIVED\PRIMARY\M\UNI\DIS3D\MFSPLIT", r"DERIVED\PRIMARY\M\DRG\NORM\DRS\WATER\DIS2D"),
        *(
            r"DERIVED\PRIMARY\T1\UNIFORM\PARALLEL\DIS3D\MFSPLIT",
            r"ORIGINAL\PRIMARY\M\SWI\NORM\DIS2D",
        ),
        *(r"ORIGINAL\PRIMARY\MAG\NORM\DIS2D", r"DERIVED\PRIMARY\M\NORM\IN_PHASE\DIS2D"),
        # Reformats.
        *(
            r"DERIVED\PRIMARY\MPR\NORM\DIS2D",
            r"DERIVED\SECONDARY\MPR",
            r"ORIGINAL\PRIMARY\MPR\M\FFE",
        ),
        r"DERIVED\SECONDARY\MPR\CSA MPR\\CSAPARALLEL\M\NORM\DIS2D",
        r"DERIVED\SECONDARY\MPR\CSA MPR THICK\\M\NORM\DIS2D\FM3_2\FIL\CSA RESAMPLED",
        r"DERIVED\SECONDARY\PROJECTION IMAGE\CSA MPR\\CSAPARALLEL\M\NORM\DIS2D",
        *(r"DERIVED\SECONDARY\REFORMATTED\AVERAGE", r"DERIVED\SECONDARY\AXIAL\AVERAGE"),
        # Philips, GE, Toshiba.
        *(rf"ORIGINAL\PRIMARY\M_{kind}\M\{kind}" for kind in ("SE", "IR", "FFE", "PCA", "TSE")),
        *(r"ORIGINAL\PRIMARY\OTHER", r"DERIVED\SECONDARY\OTHER", r"ORIGINAL\PRIMARY", "ORIGINAL"),
        *(
            r"DERIVED\PRIMARY\IP\IP\DERIVED",
            r"DERIVED\PRIMARY\OP\OP\DERIVED",
            r"DERIVED\PRIMARY\W\W",
        ),
        *(r"ORIGINAL\PRIMARY\PROPELLER\NONE", r"DERIVED\SECONDARY\PROCESSED"),
        *(r"DERIVED\SECONDARY\COMPRESSED", r"DERIVED\SECONDARY\RESAMPLED"),
        # Enhanced and split from enhanced; weightings and flavours are no maps.
        *(rf"ORIGINAL\PRIMARY\{value}\NONE" for value in ("T1", "T2", "T2_STAR", "VELOCITY")),
        *(
            rf"ORIGINAL\PRIMARY\{value}\NONE"
            for value in ("TEMPERATURE", "PERFUSION", "ASL", "FMRI")
        ),
        *(rf"DERIVED\PRIMARY\T1\{value}" for value in ("ADDITION", "MEAN", "RESAMPLED", "MASKED")),
        *(rf"DERIVED\PRIMARY\DIXON\{value}" for value in ("WATER", "FAT", "IN_PHASE")),
        r"DERIVED\PRIMARY\T1\DIVISION",
        # Diffusion whose values are magnitudes.
        *(rf"ORIGINAL\PRIMARY\DIFFUSION\NONE\{history}" for history in ("ND", "DIS2D")),
        *(r"DERIVED\PRIMARY\DIFFUSION\TRACEW\NORM\DIS2D", r"DERIVED\SECONDARY\ISODWI"),
        *(r"DERIVED\PRIMARY\DIFFUSION\CALC_BVALUE\TRACEW\NORM", r"DERIVED\PRIMARY\CMB\CMB"),
        *(r"DERIVED\PRIMARY\DIFFUSION\DIFFUSION_ISO", r"DERIVED\PRIMARY\OTHER\EXP"),
        # Synthetic weightings.
        *(r"DERIVED\PRIMARY\T2\SYNTHETIC", r"DERIVED\PRIMARY\T2W_FLAIR_SYNTHETIC"),
    ],
)
def test_slices_of_tissue_as_scanners_name_them(kind: str) -> None:
    check(image_type(kind), None)


@pytest.mark.parametrize("value", sorted(MAPS))
def test_terms_of_maps_count_in_any_place(value: str) -> None:
    check(image_type(rf"DERIVED\PRIMARY\{value}\M"), NotMagnitude)
    check(image_type(rf"DERIVED\PRIMARY\M\ND\{value}\NORM"), NotMagnitude)


@pytest.mark.parametrize("value", sorted(OF_ENHANCED))
def test_terms_of_enhanced_objects_count_from_the_fourth_value_on(value: str) -> None:
    """The third says what a series is for, its magnitudes too."""
    check(image_type(rf"ORIGINAL\PRIMARY\{value}\NONE"), None)
    check(image_type(rf"ORIGINAL\PRIMARY\{value}\M\ND"), None)
    check(image_type(rf"DERIVED\PRIMARY\M\ND\{value}\MFSPLIT"), NotMagnitude)


@pytest.mark.parametrize("value", sorted(SHORT_MAPS))
def test_short_terms_of_maps_are_no_history(value: str) -> None:
    check(image_type(rf"DERIVED\SECONDARY\{value}"), NotMagnitude)
    check(image_type(rf"DERIVED\PRIMARY\PERFUSION\{value}\ND"), NotMagnitude)
    check(image_type(rf"ORIGINAL\PRIMARY\M\ND\{value}"), None)
    check(image_type(rf"ORIGINAL\PRIMARY\M\ND\NORM\{value}\DIS2D"), None)


@pytest.mark.parametrize("value", sorted(OF_DIFFUSION))
def test_terms_of_diffusion_count_where_it_is_said(value: str) -> None:
    check(image_type(rf"DERIVED\PRIMARY\DIFFUSION\{value}\ND"), NotMagnitude)
    check(image_type(rf"DERIVED\PRIMARY\{value}\{value}"), NotMagnitude)
    for third in ("M", "OTHER", "T1"):
        check(image_type(rf"ORIGINAL\PRIMARY\{third}\{value}"), None)


@pytest.mark.parametrize("value", sorted(OF_DIFFUSION | CONTRASTS))
def test_terms_that_count_in_their_place_alone(value: str) -> None:
    check(image_type(rf"ORIGINAL\PRIMARY\{value}\NONE"), None)
    check(image_type(rf"ORIGINAL\PRIMARY\M\ND\{value}"), None)
    check(image_type(rf"ORIGINAL\PRIMARY\DIFFUSION\NONE\{value}"), None)


@pytest.mark.parametrize(
    ("kind", "attributes", "refusal"),
    [
        (r"DERIVED\SECONDARY\MPR\CSA MPR\\CSAPARALLEL\P\ND", {}, NotMagnitude),
        (r"DERIVED\SECONDARY\MPR\CSA MPR THICK\\P\SWI\DIS2D", {}, NotMagnitude),
        (r"DERIVED\SECONDARY\MPR\CSA MPR\\CSAPARALLEL\R\ND", {}, NotMagnitude),
        (r"DERIVED\SECONDARY\MPR\CSA MPR\\CSAPARALLEL\R\ND", INVERSION, None),
        (r"DERIVED\SECONDARY\MPR\CSA MPR\\CSAPARALLEL\M\ND\P", {}, None),
        (r"DERIVED\SECONDARY\MPR\OTHER\\CSAPARALLEL\P\ND", {}, None),
        (r"DERIVED\SECONDARY\PROJECTION IMAGE\CSA MIP\\CSAPARALLEL\M\ND", {}, Localizer),
        (r"DERIVED\SECONDARY\OTHER\CSA MIP THIN\\M\ND", {}, Localizer),
    ],
)
def test_what_a_workstation_made(
    kind: str, attributes: dict[str, Any], refusal: type[DecodeError] | None
) -> None:
    check(image_type(kind) | attributes, refusal)


def private(
    tag: int, vr: str, value: object, creator: str, *, block: int = 0x10
) -> dict[str, DataElement]:
    """A private attribute beside who keeps it."""
    group = tag >> 16 << 16
    return {
        "creator": DataElement(group + block, "LO", creator),
        "private": DataElement(
            group + (block << 8) + (tag & 0xFF), vr, value, validation_mode=IGNORE
        ),
    }


def of_ge(value: object, vr: str = "SS", creator: str = "GEMS_PARM_01") -> dict[str, Any]:
    return private(0x0043102F, vr, value, creator) | image_type(r"ORIGINAL\PRIMARY\OTHER")


def of_philips(
    value: object, vr: str = "CS", creator: str = "Philips MR Imaging DD 001"
) -> dict[str, Any]:
    return private(0x20051011, vr, value, creator) | image_type(r"ORIGINAL\PRIMARY\OTHER")


def as_bytes(of_vendor: Callable[..., dict[str, Any]], value: bytes) -> dict[str, Any]:
    """Of a value representation that is not known: pydicom has no creator that is written so."""
    creator = "gems_parm_01" if of_vendor is of_ge else "philips MR imaging DD 001"
    return of_vendor(value, "UN", creator)


PRIVATE_PARTS = [
    *((of_ge(value), NotMagnitude) for value in (1, 2, 3)),
    *((of_ge(value), NotMagnitude) for value in ([1, 0, 0], [1, 1], [2, 0])),
    *((of_ge(value), None) for value in (0, 4, -1, [], [0, 1], [0, 2, 1])),
    (of_ge(2) | INVERSION, None),
    (of_ge(1) | INVERSION, NotMagnitude),
    (of_ge(1, creator="ACME_PARM_01"), None),
    (of_ge("phase", "LO"), None),
    *((as_bytes(of_ge, value), NotMagnitude) for value in (b"\1\0", b"\1\0\0\0", b"\3\0\1\0\0\0")),
    *((as_bytes(of_ge, value), None) for value in (b"", b"\0\0", b"\0\0\1\0", b"\0\1")),
    *((of_ge(1, creator=name), NotMagnitude) for name in (" Gems_Parm_01 ", "gems_parm_01")),
    # What it says in public attributes goes before.
    (of_ge(1) | {"ComplexImageComponent": "MAGNITUDE"}, None),
    (of_ge(1) | {"ComplexImageComponent": "MIXED"}, NotMagnitude),
    (of_ge(1) | image_type(r"ORIGINAL\PRIMARY\M\ND"), None),
    *((of_philips(value), NotMagnitude) for value in "PRI"),
    *((of_philips(value), NotMagnitude) for value in ("p", " i ", "PHASE", "Real", ["P", "M"])),
    *((of_philips(value), None) for value in ("M", "IP", "W", "T1", "", ["M", "P"], "MAGNITUDE")),
    *((as_bytes(of_philips, value), NotMagnitude) for value in (b"P ", b"p\\M", b"PHASE\0")),
    *((as_bytes(of_philips, value), None) for value in (b"M ", b"M\\P ", b"\xff\xfe")),
    (of_philips("P", creator=" PHILIPS MR imaging DD 001"), NotMagnitude),
    (of_philips("R") | INVERSION, None),
    (of_philips("P", creator="Philips MR Imaging DD 005"), None),
    (of_philips("P") | image_type(r"ORIGINAL\PRIMARY\M_FFE\M\FFE"), None),
]


@pytest.mark.parametrize(("attributes", "refusal"), PRIVATE_PARTS)
def test_parts_of_complex_values_that_only_private_attributes_tell(
    attributes: dict[str, Any], refusal: type[DecodeError] | None
) -> None:
    check(attributes, refusal)


@pytest.mark.parametrize(
    "attributes",
    [
        *(of_ge(1, vr, name) for vr in ("SS", "SL") for name in ("GEMS_PARM_01", "gems_parm_01")),
        *(of_ge([1, 1], creator=name) for name in ("GEMS_PARM_01", " GEMS_PARM_01")),
        *(of_philips("P", creator=f"{name} MR Imaging DD 001") for name in ("Philips", "philips")),
        of_philips(["p", "M"], creator=" Philips MR Imaging DD 001"),
    ],
)
def test_private_attributes_without_value_representations(attributes: dict[str, Any]) -> None:
    """Those of a creator that pydicom does not know, as it is written, are bytes."""
    data = mr_object(GREY, ImplicitVRLittleEndian, attributes=attributes)
    with pytest.raises(NotMagnitude):
        open_dicom(data, Policy())


@pytest.mark.parametrize("value", [b"\0\1", b"\0\0\0\1", b"\0\1\0\0\0\1"])
@pytest.mark.parametrize("checked", ["object", "frame"])
def test_private_bytes_are_in_the_order_of_the_object(value: bytes, checked: str) -> None:
    attributes = as_bytes(of_ge, value)
    data = mr_object(GREY, ExplicitVRBigEndian, attributes=attributes)
    if checked == "object":
        with pytest.raises(NotMagnitude):
            open_dicom(data, Policy())
    else:
        dataset = dcmread(io.BytesIO(data))
        with pytest.raises(NotMagnitude):
            check_frame(frame_attributes(dataset, 1), STRICT)


@pytest.mark.parametrize("block", [0x11, 0x7F, 0xFF])
@pytest.mark.parametrize(
    ("tag", "vr", "value", "creator"),
    [
        (0x0043102F, "SS", 1, "GEMS_PARM_01"),
        (0x20051011, "CS", "P", "Philips MR Imaging DD 001"),
    ],
    ids=["GE", "Philips"],
)
def test_private_attributes_in_any_block(
    tag: int, vr: str, value: object, creator: str, block: int
) -> None:
    moved = private(tag, vr, value, creator, block=block)
    check(moved, NotMagnitude)
    others = private(tag, vr, value, "ACME")
    check({**moved, "other creator": others["creator"], "other": others["private"]}, NotMagnitude)
    check({"creator": moved["creator"], "other": others["private"]}, None)


@pytest.mark.parametrize("checks", Checks)
@pytest.mark.parametrize(
    ("terms", "technique", "refusal"),
    [
        (("DERIVED", "PRIMARY", "DIFFUSION", "ADC"), "NONE", NotMagnitude),
        (("DERIVED", "PRIMARY", "T1", "SUBTRACTION"), "NONE", NotMagnitude),
        (("DERIVED", "PRIMARY", "ANGIO", "NONE"), "MAX_IP", Localizer),
        (("DERIVED", "PRIMARY", "MAX_IP", "NONE"), "NONE", Localizer),
        (("DERIVED", "PRIMARY", "T1", "NONE"), "MPR", None),
    ],
    ids=["ADC", "subtraction", "calculated projection", "projection", "reformat"],
)
def test_maps_and_projections_among_other_frames_leave_them(
    checks: Checks, terms: tuple[str, ...], technique: str, refusal: type[DecodeError] | None
) -> None:
    groups = frame_type(*terms)
    kind = groups.MRImageFrameTypeSequence[0]
    kind.VolumeBasedCalculationTechnique, kind.ComplexImageComponent = technique, "MAGNITUDE"
    attributes = {
        "SOPClassUID": EnhancedMRImageStorage,
        # Of them all, which no frame has to be: the third value cannot be MIXED.
        "ImageType": ["DERIVED", "PRIMARY", "MAX_IP", "ADC"],
        "VolumeBasedCalculationTechnique": "MIXED",
        "PerFrameFunctionalGroupsSequence": [component("MAGNITUDE"), groups],
        # A frame's own part is in standard attributes.
        **private(0x0043102F, "SS", 1, "GEMS_PARM_01"),
    }
    source = open_dicom(mr_frames([GREY] * 2, attributes=attributes), Policy(checks=checks))
    for frame in (1, 2):
        is_refused = refusal is not None and checks is STRICT and frame == 2
        with pytest.raises(refusal) if is_refused and refusal else nullcontext():
            assert source.slice(frame).pixels.shape == GREY.shape


def test_private_attributes_of_an_enhanced_object_are_not_of_its_frames() -> None:
    attributes = private(0x0043102F, "SS", 1, "GEMS_PARM_01") | {
        "SOPClassUID": EnhancedMRImageStorage,
        "PerFrameFunctionalGroupsSequence": [frame_type("ORIGINAL", "PRIMARY", "T1", "NONE")] * 2,
    }
    source = open_dicom(mr_frames([GREY] * 2, attributes=attributes), Policy())
    assert source.slice(2).pixels.shape == GREY.shape


@pytest.mark.parametrize("checks", Checks)
@pytest.mark.parametrize(
    ("kind", "shared", "refusal"),
    [
        (("DERIVED", "PRIMARY", "M", "ADC"), component("MAGNITUDE"), None),
        (("DERIVED", "PRIMARY", "MAX_IP", "NONE"), component("MAGNITUDE"), None),
        (("ORIGINAL", "PRIMARY", "P", "NONE"), frame_type("ORIGINAL", "PRIMARY", "M"), None),
        (("ORIGINAL", "PRIMARY", "M", "NONE"), component("PHASE"), NotMagnitude),
        (
            ("ORIGINAL", "PRIMARY", "M", "NONE"),
            frame_type("DERIVED", "PRIMARY", "DIFFUSION", "ADC"),
            NotMagnitude,
        ),
        (
            ("ORIGINAL", "PRIMARY", "M", "NONE"),
            frame_type("DERIVED", "PRIMARY", "MAX_IP", "NONE"),
            Localizer,
        ),
        # Shared groups that say nothing of it.
        (("DERIVED", "PRIMARY", "M", "ADC"), Dataset(), NotMagnitude),
    ],
)
def test_frames_that_all_are_what_the_shared_groups_say(
    kind: tuple[str, ...], shared: Dataset, refusal: type[DecodeError] | None, checks: Checks
) -> None:
    """As it is with groups of each frame: these go before the object's own Image Type."""
    attributes = {
        "SOPClassUID": EnhancedMRImageStorage,
        "ImageType": list(kind),
        "SharedFunctionalGroupsSequence": [shared],
    }
    data = mr_frames([GREY] * 2, attributes=attributes)
    is_refused = refusal is not None and checks is STRICT
    with pytest.raises(refusal) if is_refused and refusal else nullcontext():
        assert open_dicom(data, Policy(checks=checks)).slice(2).pixels.shape == GREY.shape
