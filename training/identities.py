"""Whom a DICOM object shows, told apart without a name: what is derived here names nobody."""

import hashlib
import secrets
from typing import Final

from contract.decoding import open_source

PATIENT_ID: Final = "PatientID"
_IDENTIFIERS: Final = (PATIENT_ID, "StudyInstanceUID", "SeriesInstanceUID")
"""Attributes of a DICOM object whose values objects of one person share."""
_SALT: Final = secrets.token_bytes(32)
"""Of this process alone, and never written: no digest that is made with it leads back to a patient."""


def identities(data: bytes, site: str) -> tuple[str, ...]:
    """Whom a DICOM object shows, by its patient, study and series: digests, keyed with :data:`_SALT`.

    Each begins with its attribute. Two sites may number their patients alike, but UIDs are unique.

    All three, since any of them may be missing, and some tools that take a patient's name away give
    each object an identifier of its own.
    """
    header = open_source(data, keep=_IDENTIFIERS).header
    if header is None:
        return ()
    found = []
    for keyword in _IDENTIFIERS:
        try:
            value = str(header.get(keyword) or "").strip()
        except Exception:  # noqa: BLE001, S112 - whatever damage makes pydicom raise, with the value in it
            continue
        if value:
            within = site if keyword == PATIENT_ID else ""
            text = f"{keyword} {value.casefold()} {within}".encode("utf-8", "surrogateescape")
            digest = hashlib.blake2b(text, key=_SALT, digest_size=16).hexdigest()
            found.append(f"{keyword}:{digest}")
    return tuple(found)
