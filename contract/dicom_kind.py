"""What kind of DICOM object it is: only an MR image of a head is one that a model may see."""

import re
from typing import Final

from pydicom import Dataset
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.uid import (
    UID,
    EnhancedMRColorImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)

from contract.dicom_scan import is_localizer, is_of_patient, terms, words
from contract.dicom_values import is_magnitude, is_projection
from contract.errors import (
    Localizer,
    Mosaic,
    NoPixelData,
    NotAnImage,
    NotHead,
    NotMagnitude,
    NotMr,
    NotPatient,
    UnsupportedPixels,
    UnsupportedSopClass,
)
from contract.policy import Checks

MR_SOP_CLASSES: Final = frozenset(
    {
        MRImageStorage,
        EnhancedMRImageStorage,
        EnhancedMRColorImageStorage,
        LegacyConvertedEnhancedMRImageStorage,
    }
)
"""Storage classes of MR images (DICOM PS3.4 2024e, table B.5-1); spectroscopy is no image."""

HEAD_TERMS: Final = frozenset(
    {
        *("HEAD", "BRAIN", "SKULL", "HEADNECK", "HEADANDNECK", "NECKHEAD", "CRANIUM", "CRANIAL"),
        *("NEURO", "NEUROCRANIUM", "INTRACRANIAL", "CEREBRUM", "CEREBRAL", "CEREBELLUM"),
        *("CEREBHEMISPHERE", "BRAINSTEM", "MIDBRAIN", "THALAMUS", "POSTERIORFOSSA", "SKULLBASE"),
        *("LATVENTRICLE", "RDVENTRICLE", "THVENTRICLE", "CHOROIDPLEXUS"),
        *("CEREBRALA", "ACA", "MCA", "PCA", "ANTCOMMA", "POSCOMMA", "BASILARA", "CIRCLEOFWILLIS"),
        *("PITUITARY", "HYPOPHYSIS", "SELLA", "SELLATURCICA", "FONTANEL", "SCALP"),
        *("IAC", "IACS", "IAM", "EAC", "EAR", "MASTOID", "PETROUS"),
        *("HEADCOIL", "NEUROHEAD", "CRANIOCEREBRAL", "ENCEPHALUS"),
        *("ORBIT", "ORBITS", "EYE", "OPTICCANAL", "OPHTHALMICA"),
        *("KOPF", "SCHAEDEL", "SCHADEL", "GEHIRN", "HIRN", "TETE", "CRANE", "CERVEAU", "ENCEPHALE"),
        *("CABEZA", "CRANEO", "CEREBRO", "ENCEFALO", "TESTA", "CRANIO", "CERVELLO", "CABECA"),
        *("HOOFD", "HERSENEN", "SCHEDEL", "GLOWA", "MOZG", "HUVUD", "HJARNA", "HODE", "HJERNE"),
        *("HOVED", "KRANIUM", "KRANIE", "KRANIAL", "BEYIN", "KAFA", "KAFATASI", "AIVOT", "PAA"),
        *("HLAVA", "MOZEK", "MOZOG", "LEBKA", "KOPONYA", "FEJ", "AGY", "CREIER", "CRANIU"),
        *("GLAVA", "MOZAK", "MOZGANI", "LOBANJA", "GALVA", "KEPALA"),
        *("HYPOPHYSE", "SCHADELBASIS", "SCHAEDELBASIS", "ORBITA", "ORBITAE", "ORBITAS"),
        *("HIPPOCAMPUS", "HIPPOCAMPI", "CALLOSUM", "TRIGEMINAL", "TRIGEMINUS", "AUDITORY"),
        *("FRONTALLOBE", "TEMPORALLOBE", "PARIETALLOBE", "OCCIPITALLOBE"),
    }
)
"""Body Part Examined (0018,0015) of a head, letters alone and without accents, so that 3RDVENTRICLE
is RDVENTRICLE: the defined terms of the brain, its vessels, the skull, orbits and ears (PS3.16 2024e,
annex L), and what scanners and their users write instead. Face, jaw and throat are no head here: their
slices show little of a brain."""

OTHER_PARTS: Final = frozenset(
    {
        *("SPINE", "SPINAL", "CSPINE", "TSPINE", "LSPINE", "CTSPINE", "TLSPINE", "LSSPINE", "CORD"),
        *("SPINALCORD", "CERVICAL", "THORACIC", "LUMBAR", "SACRUM", "SACRAL", "SSPINE", "COCCYX"),
        *("CHEST", "THORAX", "LUNG", "HEART", "CARDIAC", "BREAST", "MEDIASTINUM", "STERNUM", "RIB"),
        *("AORTA", "ABDOMEN", "ABDOMINAL", "LIVER", "SPLEEN", "PANCREAS", "PANCREATIC", "KIDNEY"),
        *("PELVIS", "PELVIC", "PROSTATE", "UTERUS", "BLADDER", "RECTUM", "BODY", "WHOLEBODY"),
        *("TRUNK", "EXTREMITY", "LIMB", "JOINT", "PHANTOM"),
        *("HIP", "FEMUR", "FEMORAL", "FEMORALE", "THIGH", "KNEE", "PATELLA", "LEG", "CALF"),
        *("TIBIA", "TIBIAL", "FIBULA", "FIBULAR", "ANKLE", "FOOT", "TOE", "METATARSAL"),
        *("SHOULDER", "CLAVICLE", "SCAPULA", "ARM", "HUMERUS", "HUMERAL", "HUMERALE", "ELBOW"),
        *("FOREARM", "RADIUS", "RADIAL", "RADIALE", "ULNA", "ULNAR", "WRIST", "HAND", "FINGER"),
        *("THUMB", "METACARPAL", "FEMORIS", "HUMERI", "RADII"),
        *("FETAL", "FETUS", "FETALE", "FOETAL", "FOETUS", "FOETALE"),
        *("HWS", "BWS", "LWS", "WIRBELSAULE", "WIRBELSAEULE", "BRUST", "BAUCH", "BECKEN", "RACHIS"),
        *("COLUMNA", "COLUNA", "COLONNA", "COLONNE", "TORAX", "TORACE"),
        *("OMURGA", "SERVIKAL", "PATER", "GERINC", "COLOANA", "KRALJEZNICA", "KICMA", "KREGOSLUP"),
        *("SELKARANKA", "RYGGRAD", "PANKREAS", "PANKREATU", "PANKREASA"),
        *("FEMORU", "FEMURU", "FEMURA", "HUMERU", "HUMERUSA", "REISILUUN", "OLKALUUN", "FETALNI"),
    }
)
"""Words that turn a text with a word of :data:`HEAD_TERMS` into one of another part, of more than a
head, or of an unborn one: FEMORAL HEAD, BRAIN SPINE, FETAL BRAIN. The neck is not among them, since
HEADNECK is a head."""

NO_PART: Final = frozenset(
    {
        *("MR", "MRI", "MRA", "MRV", "MRT", "IRM", "RM", "RMN"),
        *("UNKNOWN", "UNDEFINED", "UNSPECIFIED", "NOTSPECIFIED", "NONE", "NULL", "NA"),
    }
)
"""Words that name no part of a body: a text of these alone states none."""

_PART: Final = re.compile(
    rf"(?:MR[AITV]?)?({'|'.join(sorted(HEAD_TERMS | OTHER_PARTS))})(?:MR[AITV]?|ANGIO|W?WO)?"
)
"""A word that names a part, written together with the modality or with what is said of the contrast:
MRBRAIN, HEADANGIO, BRAINWWO."""

HEAD_CODES: Final = frozenset(
    {
        *("69536005", "T-D1100", "774007", "T-D1000", "89546000", "T-11100"),
        *("12738006", "T-A0100", "1101003", "T-D1400", "372073000", "T-A010F"),
        *("113305005", "T-A6000", "119238007", "61962009", "T-A5100", "42695009", "T-A4000"),
        *("66720007", "T-A1650", "49841001", "T-A1740", "35918002", "T-A1820"),
        *("80621003", "T-A1900", "88556005", "T-45510", "60176003", "T-45540"),
        *("17232002", "T-45600", "70382005", "T-45900", "8012006", "T-45530"),
        *("43119007", "T-45320", "59011009", "T-45800", "11279006", "T-45520"),
        *("42575006", "T-D1460", "56329008", "T-B1000", "79361005", "T-15200"),
        *("41695006", "T-D1160", "361078006", "T-AB959", "84301002", "T-AB200"),
        *("117590005", "T-AB001", "59066005", "T-11133", "363654007", "T-D14AE"),
        *("81745001", "T-AA000", "55024004", "T-11102", "53549008", "T-45400"),
    }
)
"""Anatomic Region Sequence (0008,2218) of what :data:`HEAD_TERMS` names, in SNOMED CT and, where there
is one, in SNOMED RT (PS3.16 2024e, CID 4031 and annex L)."""

FLOAT_PIXELS: Final = ("FloatPixelData", "DoubleFloatPixelData")
"""Pixels that are no integers (PS3.3 2024e, C.7.6.24 and C.7.6.25): known to be there, never read."""


def check_kind(dataset: Dataset, checks: Checks) -> None:
    """Refuses what no model may see.

    Raises:
        NotAnImage, NoPixelData: always.
        UnsupportedPixels: always: its only pixels are Float or Double Float Pixel Data.
        Mosaic: always: a picture of many small slices is none of them.
        NotMr, UnsupportedSopClass, NotPatient, Localizer, NotMagnitude, NotHead: as ``checks`` has it.
    """
    sop_class = dataset.get("SOPClassUID")
    has_pixels = bool(dataset.get("PixelData"))
    has_floats = any(keyword in dataset for keyword in FLOAT_PIXELS)
    if not has_pixels and not has_floats and not _is_image_class(sop_class):
        raise NotAnImage("the DICOM object is no image")
    is_mr = str(dataset.get("Modality", "")).strip().upper() == "MR"
    is_mr_class = sop_class in MR_SOP_CLASSES
    if checks is Checks.STRICT:
        if not is_mr:
            raise NotMr("the DICOM object is no MR image")
        if not is_mr_class:
            raise UnsupportedSopClass("the DICOM object is of MR, but no MR image")
        if not is_of_patient(dataset):
            raise NotPatient(
                "Patient Species or Quality Control of the DICOM object says: an animal or a phantom"
            )
        if is_localizer(dataset) or _has_only_localizers(dataset):
            raise Localizer("the DICOM object is a localizer")
        if not _has_frame_types(dataset):
            _check_values(dataset, "DICOM object")
        if not _is_head(dataset):
            raise NotHead("the DICOM object states another body part than the head")
    elif checks is Checks.LENIENT and not is_mr and not is_mr_class:
        raise NotMr("the DICOM object is no MR image")
    if "MOSAIC" in terms(dataset, "ImageType"):
        raise Mosaic("the DICOM object is a mosaic of slices")
    if not has_pixels and has_floats:
        raise UnsupportedPixels("the values of the DICOM object are no integers")
    if not has_pixels:
        raise NoPixelData("the DICOM object holds no pixel data")


def check_frame(attributes: Dataset, checks: Checks) -> None:
    """Refuses a frame that no model may see, of what `contract.dicom_frames.frame_attributes` gives.

    Raises:
        Localizer, NotMagnitude: it is one among other frames, and ``checks`` are strict.
    """
    if checks is not Checks.STRICT:
        return
    if "LOCALIZER" in terms(attributes, "FrameType"):
        raise Localizer("the frame is a localizer")
    _check_values(attributes, "frame")


def _check_values(attributes: Dataset, subject: str) -> None:
    if is_projection(attributes):
        raise Localizer(f"the {subject} is a projection of slices")
    if not is_magnitude(attributes):
        raise NotMagnitude(
            f"the {subject} is a phase, real, imaginary or velocity image, a map or a difference"
        )


def _has_frame_types(dataset: Dataset) -> bool:
    """Whether functional groups say what the frames are, for :func:`check_frame` to read."""
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    return "PerFrameFunctionalGroupsSequence" in dataset or any(
        groups.get("MRImageFrameTypeSequence") for groups in shared
    )


def _is_image_class(sop_class: object) -> bool:
    """Whether it is a storage class of images by its registered name."""
    return isinstance(sop_class, UID) and "Image Storage" in sop_class.name


def _has_only_localizers(dataset: Dataset) -> bool:
    """Whether an enhanced object says so of its frames (PS3.3 2024e, C.8.13.5.1)."""
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    own = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    return any(map(_is_localizer, shared)) or (bool(own) and all(map(_is_localizer, own)))


def _is_localizer(groups: Dataset) -> bool:
    return any(
        "LOCALIZER" in terms(item, "FrameType")
        for item in groups.get("MRImageFrameTypeSequence") or []
    )


def _is_head(dataset: Dataset) -> bool:
    """Whether it is one, or says nothing: many scanners say nothing."""
    stated = words(_body_part(dataset))
    named = [found[1] if (found := _PART.fullmatch(word)) else word for word in stated]
    named = [word for word in named if word not in NO_PART]
    if named and "".join(stated) not in NO_PART:
        if "".join(named) in HEAD_TERMS:
            return True
        return OTHER_PARTS.isdisjoint(named) and not HEAD_TERMS.isdisjoint(named)
    codes = _anatomic_codes(dataset)
    return not codes or not codes.isdisjoint(HEAD_CODES)


def _body_part(dataset: Dataset) -> str:
    """Body Part Examined as it was meant.

    It is a code string, for which ASCII is enough, so pydicom heeds no character set in it; read as
    Latin-1, a word of another alphabet would look like one that names another part.
    """
    stated = str(dataset.get("BodyPartExamined") or "").encode("latin-1", "replace")
    try:
        if b"\x1b" not in stated:
            return stated.decode()
    except UnicodeDecodeError:
        pass
    return decode_bytes(stated, convert_encodings(dataset.get("SpecificCharacterSet")), set())


def _anatomic_codes(dataset: Dataset) -> frozenset[str]:
    """Where an enhanced object keeps it (PS3.3 2024e, C.7.6.16.2.8), and where others may."""
    regions = list(dataset.get("AnatomicRegionSequence") or [])
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for groups in list(dataset.get(keyword) or [])[:1]:
            for anatomy in groups.get("FrameAnatomySequence") or []:
                regions.extend(anatomy.get("AnatomicRegionSequence") or [])
    codes = (str(region.get("CodeValue") or "").strip() for region in regions)
    return frozenset(code for code in codes if code)
