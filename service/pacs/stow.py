"""The answer to a STOW-RS request (DICOM PS3.18 2024e, section 10.5.3 and annex I.2)."""

from http import HTTPStatus
from typing import Any, Final

from service.pacs.identity import Identity, Refused
from service.pacs.receiver import Receipt

MEDIA_TYPE: Final = "application/dicom+json"

Dataset = dict[str, dict[str, Any]]


def status(receipt: Receipt) -> HTTPStatus:
    """All stored, some, or none (PS3.18 2024e, table 10.5.3-1)."""
    if not receipt.refused:
        return HTTPStatus.OK
    return HTTPStatus.ACCEPTED if receipt.stored else HTTPStatus.CONFLICT


def dataset(receipt: Receipt) -> Dataset:
    """The response dataset in the DICOM JSON model (PS3.18 2024e, annex F)."""
    # Results lie at the destination, so nothing can be retrieved from here.
    content: Dataset = {"00081190": {"vr": "UR"}}
    named = [refusal for refusal in receipt.refused if refusal.sop_class and refusal.sop]
    other = [refusal for refusal in receipt.refused if not (refusal.sop_class and refusal.sop)]
    for tag, items in (
        ("00081198", [_failed(refusal) for refusal in named]),
        ("00081199", [_stored(identity) for identity in receipt.stored]),
        ("0008119A", [_reason(refusal) for refusal in other]),
    ):
        if items:
            content[tag] = {"vr": "SQ", "Value": items}
    return content


def _stored(identity: Identity) -> Dataset:
    return _reference(identity.sop_class, identity.sop) | {"00081190": {"vr": "UR"}}


def _failed(refusal: Refused) -> Dataset:
    return _reference(refusal.sop_class, refusal.sop) | _reason(refusal)


def _reason(refusal: Refused) -> Dataset:
    return {"00081197": {"vr": "US", "Value": [int(refusal.reason)]}}


def _reference(sop_class: str | None, sop: str | None) -> Dataset:
    return {
        "00081150": {"vr": "UI", "Value": [sop_class]},
        "00081155": {"vr": "UI", "Value": [sop]},
    }
