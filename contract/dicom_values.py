"""What the values of pixels are: of the signal of tissue in a slice, or computed from it.

What is no slice of tissue must be refused. A wrong refusal of one that is costs a patient a result, so
whole values alone count, those that mean nothing else, and what is doubtful is accepted. Terms are the
standard's, and those of scanners, as dcm2niix reads them or as collections of real objects have them.
"""

import math
import re
from typing import Final

from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import ExplicitVRBigEndian

from contract.dicom_scan import terms, words
from contract.greyscale import floats, term

MAPS: Final = frozenset(
    {
        # The standard's for classic objects (PS3.3 2024e, C.8.3.1.1.1): no MPR, no IMAGE ADDITION.
        *("PHASE MAP", "VELOCITY MAP", "T1 MAP", "T2 MAP", "DIFFUSION MAP", "DENSITY MAP"),
        *("PHASE SUBTRACT", "MODULUS SUBTRACT"),
        # The standard's for enhanced ones that classic ones have as well.
        *("ADC", "RCBF", "RCBV", "SUBTRACTION"),
        # Philips and GE: exponential ADC, field map, quantitative maps of synthetic MR.
        *("EADC", "B0 MAP", "QMAP", "MULTI_QMAP", "SUBTRACT"),
        # Siemens: perfusion, statistics, and differences, which its history of steps ends with.
        *("RELCBF", "RELCBV", "RELMTT", "TTEST", "SUB"),
        # Workstations' perfusion.
        *("CBF", "CBV", "TMAX", "CBF BASIC", "CBV BASIC", "RCBF BASIC", "RCBV BASIC"),
        *("MTT BASIC", "TTP BASIC", "TMAX BASIC", "OEF MODEL BASED", "RCMRO2 MODEL BASED"),
    }
)
"""Values of Image Type and Frame Type of parameters and of differences, in any place.

These are not among them, as they are, or may be, pictures of tissue:

- trace-weighted and calculated diffusion (TRACEW, DIFFUSION_ISO, CALC_BVALUE): means of magnitudes
- ADD, ADDITION, MEAN, MSUM, MAXIMUM, MINIMUM, MASKED, RESAMPLED, MULTIPLICATION and DIVISION, which a
  correction of brightness is
- WATER, FAT, IN_PHASE, OUT_OF_PHASE, SWI
- SYNTHETIC and UNI, which look like acquired weightings
- T1, T2 and T2_STAR, which are weightings; PERFUSION and ASL, which the source images have too
- SCM, TCS, NEI and DIFFUSION_ATTNTD: what they show is not known well enough
"""

SHORT_MAPS: Final = frozenset({"MTT", "TTP", "PBP", "OEF", "RHO"})
"""Likewise, but as third or fourth value alone: short enough for something else in a history. Perfusion
(PBP, the percentage of baseline at peak, is Siemens') and proton density."""

OF_ENHANCED: Final = frozenset(
    {
        *("DIFFUSION_ANISO", "METABOLITE_MAP", "PERFUSION_ASL", "FIELD_MAP"),
        *("T1_MAP", "T2_MAP", "T2_STAR_MAP", "R2_MAP", "R2_STAR_MAP", "SNR_MAP"),
        *("STD_DEVIATION", "R_COEFFICIENT", "T_TEST", "Z_SCORE"),
        *("FAT_FRACTION", "WATER_FRACTION"),
    }
)
"""Likewise, but from the fourth value on: the third says what a series is for, its magnitudes too. The
standard's for enhanced objects (PS3.3 2024e, C.8.13.1.1.1.4 and C.8.16.1.4), which has them as fourth;
where a scanner splits such objects, further behind."""

CONTRASTS: Final = frozenset({"VELOCITY", "TEMPERATURE"})
"""Likewise, but the fourth value alone (PS3.3 2024e, C.8.13.1.1.1.3)."""

OF_DIFFUSION: Final = frozenset({"EXP", "FA", "TENSOR"})
"""Likewise, but the fourth value after DIFFUSION, as Siemens writes them, or after itself alone:
exponential ADC, fractional anisotropy, and tensors."""

PROJECTIONS: Final = frozenset(
    {
        # The standard's; Philips cuts the first off at times.
        *("PROJECTION IMAGE", "PROJECTION IMAG", "MAX_IP", "MIN_IP"),
        # GE's, then Siemens': of minima, of standard deviations, and the plane.
        *("MIP", "HD MIP", "MIN IP"),
        *("MNIP", "MIP_SAG", "MIP_COR", "MIP_TRA", "STDDEV_SAG", "STDDEV_COR", "STDDEV_TRA"),
        *("CSA MIP", "CSA MIP THIN"),
    }
)
"""Likewise, of projections of slices."""

REFORMATS: Final = frozenset({"CSA MPR", "CSA MPR THICK"})
"""What Siemens' workstations write of reformatted slices, on some beside PROJECTION IMAGE."""

TECHNIQUES: Final = frozenset({"MAX_IP", "MIN_IP", "VOLUME_RENDER", "SURFACE_RENDER"})
"""Volume Based Calculation Technique (0008,9207) of no slice (PS3.3 2024e, C.8.16.2.1.3)."""

COMPONENTS: Final = {"M": "MAGNITUDE", "P": "PHASE", "R": "REAL", "I": "IMAGINARY"}
"""Letters by which scanners name a part of complex values."""

GE_COMPONENTS: Final = {1: "PHASE", 2: "REAL", 3: "IMAGINARY"}
"""Values of GE's private Image Type; 0 is a magnitude, and others are none of these."""

_GE: Final = (0x0043, "GEMS_PARM_01", 0x2F)

_PHILIPS: Final = (0x2005, "PHILIPS MR IMAGING DD 001", 0x11)
"""With :data:`_GE`: where a part of complex values is. The group, the private creator in upper case,
and the element in that creator's block, which may be any of them (PS3.5 2024e, 7.8.1)."""

_BLOCKS: Final = range(0x10, 0x100)

PRIVATE: Final = tuple(
    tag
    for group, _, element in (_GE, _PHILIPS)
    for block in _BLOCKS
    for tag in (group << 16 | block, group << 16 | block << 8 | element)
)
"""Tags of private creators, and of what :data:`_GE` and :data:`_PHILIPS` may be, in every block."""

_OTHERS: Final = frozenset(COMPONENTS.values()) - {"MAGNITUDE"}

_INVERSION: Final = re.compile(r"(?:.*_)?IR|PSIR.*|TRUE_IR.*")
"""A value of Image Type of an inversion recovery."""


def is_projection(attributes: Dataset) -> bool:
    """Whether a classic object, or a frame, is a projection of slices or a rendering, not a slice."""
    values = _kind(attributes)
    found = PROJECTIONS.intersection(values)
    if not REFORMATS.isdisjoint(values):
        found -= {"PROJECTION IMAGE"}
    return bool(found) or term(attributes, "VolumeBasedCalculationTechnique") in TECHNIQUES


def is_magnitude(attributes: Dataset) -> bool:
    """Whether a classic object, or a frame, is no map, and no other part of complex values.

    The real part of an inversion recovery counts as one: phase-sensitive inversion recovery shows
    tissue, and differs from a magnitude in that the sign of its signal is kept. Such a recovery says
    so in any of the ways that scanners have, or states an inversion time.

    Args:
        attributes: of an object, or what `contract.dicom_frames.frame_attributes` gives.
    """
    values = _kind(attributes)
    if _is_map(values):
        return False
    part = term(attributes, "ComplexImageComponent")
    if part in {"", "MIXED"}:
        part = _named_part(values) or _private_part(attributes)
    if part == "REAL":
        return _is_inversion(attributes, values)
    return part not in _OTHERS


def _kind(attributes: Dataset) -> tuple[str, ...]:
    """Frame Type, or Image Type where a frame or an object has none."""
    return terms(attributes, "FrameType" if attributes.get("FrameType") else "ImageType")


def _is_map(values: tuple[str, ...]) -> bool:
    places = (
        (MAPS, values),
        (SHORT_MAPS, values[2:4]),
        (OF_ENHANCED, values[3:]),
        (CONTRASTS, values[3:4]),
    )
    if any(not known.isdisjoint(found) for known, found in places):
        return True
    after = {("DIFFUSION",), values[3:4]}
    return not OF_DIFFUSION.isdisjoint(values[3:4]) and values[2:3] in after


def _named_part(values: tuple[str, ...]) -> str:
    """The third or the fourth value, of which one that is no magnitude goes before one that is.

    In a reformatted slice the workstation's values stand before it, so it is the first in any place;
    what follows is the slice's history.
    """
    is_reformat = not REFORMATS.isdisjoint(values)
    named = [COMPONENTS.get(value, value) for value in values[2 : None if is_reformat else 4]]
    found = [value for value in named if value in COMPONENTS.values()]
    others = [] if is_reformat else [value for value in found if value in _OTHERS]
    return next(iter(others + found), "")


def _private_part(attributes: Dataset) -> str:
    """What GE, whose Image Type never says it, or Philips has in private attributes.

    Not of an enhanced object, which has frames of several parts, and standard attributes for them.
    """
    if "PerFrameFunctionalGroupsSequence" in attributes:
        return ""
    try:
        if (value := _private_value(attributes, *_GE)) is not None:
            return GE_COMPONENTS.get(_number(value, attributes), "")
        if (value := _private_value(attributes, *_PHILIPS)) is not None:
            part = COMPONENTS.get(_text(value), _text(value))
            return part if part in COMPONENTS.values() else ""
    except Exception:  # noqa: BLE001 - damaged, or of another type: not read at all, it does no harm
        return ""
    return ""


def _private_value(attributes: Dataset, group: int, creator: str, element: int) -> object:
    """The first value of a private element; bytes where its value representation is not known."""
    for owner in sorted(attributes.keys()):
        if owner >> 16 != group or owner & 0xFFFF not in _BLOCKS:
            continue
        tag = group << 16 | (owner & 0xFF) << 8 | element
        if tag in attributes and _text(attributes[owner].value) == creator:
            value: object = attributes[tag].value
            return value[0] if isinstance(value, MultiValue | list) else value
    return None


def _number(value: object, attributes: Dataset) -> int:
    """A value, or the first of bytes: of numbers of two bytes, or one of four."""
    if not isinstance(value, bytes):
        return int(str(value))
    meta = getattr(attributes, "file_meta", {})
    if meta.get("TransferSyntaxUID") == ExplicitVRBigEndian:
        return int.from_bytes(value if len(value) == 4 else value[:2], "big")
    # A small number of four bytes begins with it.
    return int.from_bytes(value[:2], "little")


def _text(value: object) -> str:
    """A value, or the first of bytes, upper case."""
    text = value.decode("ascii") if isinstance(value, bytes) else str(value)
    return text.split("\\")[0].strip("\0 ").upper()


def _is_inversion(attributes: Dataset, values: tuple[str, ...]) -> bool:
    if term(attributes, "InversionRecovery") == "YES":
        return True
    if "IR" in terms(attributes, "ScanningSequence") or any(map(_INVERSION.fullmatch, values)):
        return True
    descriptions = (attributes.get(name) for name in ("SeriesDescription", "ProtocolName"))
    return any("PSIR" in words(text) for text in descriptions) or any(
        _is_positive(attributes, keyword) for keyword in ("InversionTime", "InversionTimes")
    )


def _is_positive(attributes: Dataset, keyword: str) -> bool:
    """Whether any of its values is; what is no number is not."""
    try:
        return any(0 < value < math.inf for value in floats(attributes, keyword))
    except ValueError:
        return False
