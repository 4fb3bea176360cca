"""Coded concepts of the objects: standard ones where there are any, else ``99BRAINMRI``."""

import hashlib
import re
from typing import Final

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from contract.answer import Decision
from service.dicom.findings import class_words

PRIVATE_SCHEME: Final = "99BRAINMRI"
"""Private coding scheme; its codes are listed in ``docs/pacs-objects.md``."""

NEOPLASM_OF_BRAIN: Final = Code("126952004", "SCT", "Neoplasm of brain")

CLASS_CODES: Final = {
    "glioma": Code("393564001", "SCT", "Glioma"),
    "meningioma": Code("302820008", "SCT", "Intracranial meningioma"),
    "pituitary": Code("127024001", "SCT", "Neoplasm of pituitary gland"),
}
"""Classes of the model that are findings."""

DECISION_CODES: Final = {
    Decision.TUMOR: Code("260373001", "SCT", "Detected"),
    Decision.NO_TUMOR: Code("260415000", "SCT", "Not detected"),
    Decision.REFER: codes.SCT.Indeterminate,
}

PROBABILITY: Final = codes.DCM.Probability
PERCENT: Final = codes.UCUM.Percent
FINDING: Final = codes.DCM.Finding
COMMENT: Final = codes.DCM.Comment
BRAIN: Final = codes.SCT.Brain
AREA: Final = codes.SCT.Area
SQUARE_MILLIMETER: Final = codes.UCUM.SquareMillimeter
BRAIN_MRI: Final = codes.LN.BrainMRI
ARTIFICIAL_INTELLIGENCE: Final = codes.DCM.ArtificialIntelligence
ABNORMAL_STRUCTURE: Final = codes.SCT.MorphologicallyAbnormalStructure
NEOPLASM: Final = codes.SCT.Neoplasm

_MAX_VALUE: Final = 16
"""Characters of a code value (DICOM PS3.3 2024e, 8.1)."""


def class_probability(name: str) -> CodedConcept:
    """The concept "probability of this class"; no standard has one."""
    word = re.sub(r"[^A-Z0-9]", "", name.upper())
    value = f"PROB_{word}"
    if len(value) > _MAX_VALUE or not word:
        value = f"PROB_{hashlib.sha256(name.encode()).hexdigest()[:8].upper()}"
    return CodedConcept(value, PRIVATE_SCHEME, f"Probability of {class_words(name)}"[:64])


def private_scheme() -> CodingSchemeIdentificationItem:
    """What an object that uses the private scheme says of it."""
    return CodingSchemeIdentificationItem(
        PRIVATE_SCHEME, name="Brain MRI inference", responsible_organization="Brain MRI inference"
    )
