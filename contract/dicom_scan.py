"""Who or what was scanned, and for what: no animal and no localizer."""

import re
import unicodedata
from typing import Final

from pydicom import Dataset
from pydicom.sequence import Sequence

from contract.greyscale import term

PEOPLE: Final = frozenset(
    {
        *("HOMO", "SAPIENS", "HUMAN", "HUMANS", "HUMANUS", "MENSCH", "MENSCHEN", "MENSCHLICH"),
        *("HUMAIN", "HUMAINE", "HUMANO", "HUMANA", "UMANO", "UMANA", "UOMO", "MENS", "MANNISKA"),
        *("MENNESKE", "CZLOWIEK"),
    }
)
"""Words of Patient Species Description (0010,2201) for a person, whatever stands beside them."""

ALSO_PEOPLE: Final = frozenset(
    {
        *("H", "PERSON", "PERSONS", "PEOPLE", "PATIENT", "VOLUNTEER", "SUBJECT", "PROBAND"),
        *("MAN", "WOMAN", "MALE", "FEMALE", "BOY", "GIRL", "ADULT", "CHILD", "INFANT", "BABY"),
        *("HOMME", "FEMME", "ENFANT", "ADULTE", "PERSONNE", "PATIENTE", "VOLONTAIRE"),
        *("PERSONA", "HOMBRE", "MUJER", "NINO", "NINA", "ADULTO", "ADULTA", "PACIENTE"),
        *("MANN", "FRAU", "KIND", "ERWACHSENER", "PATIENTIN", "PROBANDIN"),
        *("DONNA", "BAMBINO", "PAZIENTE", "HOMEM", "MULHER", "PESSOA", "HEALTHY"),
    }
)
"""Words for a person that name no species where there is no other word: an adult may be a dog."""

NO_PEOPLE: Final = frozenset(
    {"NON", "NONHUMAN", "NOT", "PHANTOM", "ANIMAL", "XENOGRAFT", "MOUSE", "MICE", "RAT", "RATS"}
)
"""Words that turn one of :data:`PEOPLE` round."""

NO_SPECIES: Final = frozenset(
    {
        *("UNKNOWN", "UNDEFINED", "UNSPECIFIED", "NOTSPECIFIED", "NONE", "NULL", "NA", "N", "NO"),
        *("NOTAPPLICABLE", "NOTSTATED", "NOTKNOWN", "OTHER", "OTHERS", "STANDARD", "NORMAL"),
        *("ANONYMOUS", "ANONYMIZED", "ANONYMISED", "REMOVED", "UNBEKANNT", "KEINEANGABE"),
        *("INCONNU", "INCONNUE", "NONRENSEIGNE", "AUTRE", "DESCONOCIDO", "DESCONOCIDA", "OTRO"),
        *("SCONOSCIUTO", "SCONOSCIUTA", "DESCONHECIDO", "ONBEKEND"),
    }
)
"""Texts that name no species, their letters alone."""

PEOPLE_CODES: Final = frozenset({"337915000", "L-85B00"})
"""Patient Species Code Sequence (0010,2202) of a person, in SNOMED CT and SNOMED RT (PS3.16 2024e, CID
7454); another code is one where its meaning says so."""

LOCALIZERS: Final = frozenset(
    {
        *("LOCALIZER", "LOCALISER", "LOCALIZERS", "LOCALISERS", "LOKALISATOR", "LOCALIZADOR"),
        *("LOCALIZADORES", "LOCALIZZATORE", "SCOUT", "SCOUTS", "SCOUTVIEW", "AAHEADSCOUT"),
        "AAHSCOUT",
    }
)
"""Words of a series description that name a localizer."""

SHORT_LOCALIZERS: Final = frozenset({"LOC", "LOCS", "SURVEY", "SURVEYS", "PILOT"})
"""Likewise, but beside a part of the body they mean other things: loss of consciousness,
a protocol."""

PLAIN: Final = frozenset(
    {
        *("T", "S", "C", "AX", "AXIAL", "COR", "CORONAL", "SAG", "SAGITTAL", "TRA", "TRANS"),
        *("TRANSVERSE", "TRANSVERSAL", "TRI", "THREE", "MULTI"),
        *("PLANE", "PLANES", "PLANAR", "PLAN"),
        *("PL", "ISO", "MST", "MPR", "MR", "MRI"),
        *("FAST", "QUICK", "ALIGNED", "AUTO", "FIRST", "INITIAL", "REPEAT", "RPT", "STANDARD"),
        *("RF", "GRE", "FGRE", "SSFSE", "HASTE", "TRUFI", "TRUEFISP", "FIESTA", "FFE", "BFFE"),
        *("TFE", "BTFE", "SENSE"),
        *("CH", "CHANNEL", "COIL", "HEADCOIL", "SHC", "NV", "HNS", "QBC"),
    }
)
"""Words that a localizer's description may have beside the one that names it: planes, sequences, coils.
With any other word it is not believed to be one: ``T1 after localizer`` is none."""

PARTS: Final = frozenset({"AAHEAD", "HEAD", "BRAIN", "KOPF", "CEREBRO", "TETE", "CRANE", "CRANEO"})
"""Likewise, but not beside :data:`SHORT_LOCALIZERS`."""

LOCALIZER_TYPES: Final = frozenset({"LOCALIZER", "SCOUT", "POSDISP"})
"""Values of Image Type of localizers, and of pictures of where slices lie."""

_WORD: Final = re.compile(r"[A-Z]+")

_WORD_OR_WEIGHTING: Final = re.compile(r"T[12]|[A-Z]+")


def is_of_patient(dataset: Dataset) -> bool:
    """Whether it is of a person, or says nothing of a species; and not for quality control.

    A species that is not known to be a person's counts as an animal's, a misspelt one too. Species have
    thousands of names, people few, and the standard wants one stated of what is no person alone
    (PS3.3 2024e, table C.7-1). Who is refused by mistake learns why and can have it let through; who
    gets an answer for an animal learns nothing.
    """
    for keyword in ("QualityControlSubject", "QualityControlImage"):
        if term(dataset, keyword) == "YES":
            return False
    codes = dataset.get("PatientSpeciesCodeSequence")
    # Of another value representation it is no sequence, and what is meant by it is anyone's guess.
    stated = [_is_code_of_person(code) for code in codes] if isinstance(codes, Sequence) else []
    stated.append(_is_person(dataset.get("PatientSpeciesDescription")))
    return True in stated or False not in stated


def is_localizer(dataset: Dataset) -> bool:
    """Whether Image Type or a description says so.

    The protocol counts where the series has no description of its own: on some scanners it is that of
    the whole examination.
    """
    if not LOCALIZER_TYPES.isdisjoint(terms(dataset, "ImageType")):
        return True
    stated = (_upper(dataset.get(keyword)) for keyword in ("SeriesDescription", "ProtocolName"))
    described = next(filter(None, map(_WORD_OR_WEIGHTING.findall, stated)), [])
    others = set(described) - PLAIN
    if not others.isdisjoint(LOCALIZERS):
        return others <= LOCALIZERS | SHORT_LOCALIZERS | PARTS
    return bool(others) and others <= SHORT_LOCALIZERS


def terms(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """The values of Image Type or Frame Type."""
    values = dataset.get(keyword) or ()
    values = [values] if isinstance(values, str) else values
    return tuple(str(value).strip().upper() for value in values)


def words(text: object) -> list[str]:
    """The Latin words of a text, upper case and without accents."""
    return _WORD.findall(_upper(text))


def _upper(text: object) -> str:
    parts = unicodedata.normalize("NFKD", str(text or ""))
    plain = "".join(part for part in parts if not unicodedata.combining(part)).upper()
    # Its stroke is no accent to Unicode.
    return plain.replace("Ł", "L")


def _is_person(text: object) -> bool | None:
    """None if it names no species, as a text in another alphabet than the Latin one."""
    named = words(text)
    if ALSO_PEOPLE.issuperset(named) or "".join(named) in NO_SPECIES:
        return None
    return not PEOPLE.isdisjoint(named) and NO_PEOPLE.isdisjoint(named)


def _is_code_of_person(code: Dataset) -> bool | None:
    value, meaning = str(code.get("CodeValue") or "").strip(), code.get("CodeMeaning")
    if value in PEOPLE_CODES:
        return True
    return _is_person(meaning) if words(meaning) or not value else False
