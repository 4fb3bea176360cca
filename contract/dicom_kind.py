"""What kind of DICOM object it is: only an MR image of a head is one that a model may see."""

import re
import unicodedata
from typing import Final

from pydicom import Dataset
from pydicom.uid import (
    UID,
    EnhancedMRColorImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)

from contract.errors import (
    Localizer,
    Mosaic,
    NoPixelData,
    NotAnImage,
    NotHead,
    NotMr,
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
        *(
            "NEURO",
            "NEUROCRANIUM",
            "INTRACRANIAL",
            "CEREBRUM",
            "CEREBELLUM",
            "BRAINSTEM",
            "MIDBRAIN",
        ),
        *("POSTERIORFOSSA", "SKULLBASE", "PITUITARY", "HYPOPHYSIS", "SELLA", "SELLATURCICA", "IAC"),
        *("IAM", "ORBIT", "ORBITS"),
        *("KOPF", "SCHAEDEL", "SCHADEL", "GEHIRN", "HIRN", "TETE", "CRANE", "CERVEAU", "ENCEPHALE"),
        *("CABEZA", "CRANEO", "CEREBRO", "ENCEFALO", "TESTA", "CRANIO", "CERVELLO", "CABECA"),
        *("HOOFD", "HERSENEN", "SCHEDEL", "GLOWA", "MOZG", "HUVUD", "HJARNA", "HODE", "HJERNE"),
    }
)
"""Body Part Examined (0018,0015) of a head, letters alone and without accents: the defined terms
(PS3.16 2024e, annex L), and what scanners and their users write instead."""

HEAD_CODES: Final = frozenset(
    {
        *("69536005", "T-D1100", "774007", "T-D1000", "89546000", "T-11100"),
        *("12738006", "T-A0100", "1101003", "372073000", "113305005", "T-A6000", "119238007"),
        *("61962009", "T-A5100", "42575006", "T-D1460", "56329008", "T-B1000"),
        *("361078006", "T-AB959", "363654007", "T-D14AE"),
    }
)
"""Anatomic Region Sequence (0008,2218) of a head: head, head and neck, skull, brain, intracranial,
hemisphere, cerebellum, brain stem, midbrain, sella, pituitary, internal auditory canal and orbit, in
SNOMED CT and, where there is one, in SNOMED RT (PS3.16 2024e, CID 4031)."""

_NO_LETTER: Final = re.compile(r"[^A-Z]")


def check_kind(dataset: Dataset, checks: Checks) -> None:
    """Refuses what no model may see.

    Raises:
        NotAnImage, NoPixelData: always.
        Mosaic: always: a picture of many small slices is none of them.
        NotMr, UnsupportedSopClass, Localizer, NotHead: as ``checks`` has it.
    """
    sop_class = dataset.get("SOPClassUID")
    has_pixels = bool(dataset.get("PixelData"))
    if not has_pixels and not _is_image_class(sop_class):
        raise NotAnImage("the DICOM object is no image")
    is_mr = str(dataset.get("Modality", "")).strip().upper() == "MR"
    is_mr_class = sop_class in MR_SOP_CLASSES
    image_type = _image_type(dataset)
    if checks is Checks.STRICT:
        if not is_mr:
            raise NotMr("the DICOM object is no MR image")
        if not is_mr_class:
            raise UnsupportedSopClass("the DICOM object is of MR, but no MR image")
        if "LOCALIZER" in image_type:
            raise Localizer("the DICOM object is a localizer")
        if not _is_head(dataset):
            raise NotHead("the DICOM object states another body part than the head")
    elif checks is Checks.LENIENT and not is_mr and not is_mr_class:
        raise NotMr("the DICOM object is no MR image")
    if "MOSAIC" in image_type:
        raise Mosaic("the DICOM object is a mosaic of slices")
    if not has_pixels:
        raise NoPixelData("the DICOM object holds no pixel data")


def _is_image_class(sop_class: object) -> bool:
    """Whether it is a storage class of images by its registered name."""
    return isinstance(sop_class, UID) and "Image Storage" in sop_class.name


def _image_type(dataset: Dataset) -> frozenset[str]:
    values = dataset.get("ImageType") or ()
    values = [values] if isinstance(values, str) else values
    return frozenset(str(value).strip().upper() for value in values)


def _is_head(dataset: Dataset) -> bool:
    """Whether it is one, or says nothing: many scanners say nothing."""
    stated = str(dataset.get("BodyPartExamined") or "")
    term = _NO_LETTER.sub("", unicodedata.normalize("NFKD", stated).upper())
    if term:
        return term in HEAD_TERMS
    codes = _anatomic_codes(dataset)
    return not codes or not codes.isdisjoint(HEAD_CODES)


def _anatomic_codes(dataset: Dataset) -> frozenset[str]:
    """Where an enhanced object keeps it (PS3.3 2024e, C.7.6.16.2.8), and where others may."""
    regions = list(dataset.get("AnatomicRegionSequence") or [])
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for groups in list(dataset.get(keyword) or [])[:1]:
            for anatomy in groups.get("FrameAnatomySequence") or []:
                regions.extend(anatomy.get("AnatomicRegionSequence") or [])
    codes = (str(region.get("CodeValue") or "").strip() for region in regions)
    return frozenset(code for code in codes if code)
