"""The Accept header."""

import pytest

from service.errors import NotAcceptable
from service.negotiation import EXPLANATION_FORMS, MAX_LENGTH, Form, accepted_forms

JSON, DICOM, PNG = Form.JSON, Form.DICOM, Form.PNG
RELATED = 'multipart/related; type="application/dicom"'


@pytest.mark.parametrize(
    ("header", "forms"),
    [
        (None, (JSON, DICOM)),
        ("", (JSON, DICOM)),
        ("*/*", (JSON, DICOM)),
        ("application/json", (JSON,)),
        ("application/*", (JSON,)),
        ("Application/JSON; charset=utf-8", (JSON,)),
        ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", (JSON, DICOM)),
        (RELATED, (DICOM,)),
        ("multipart/related; type=application/dicom", (DICOM,)),
        ('MULTIPART/Related;TYPE="application/DICOM"', (DICOM,)),
        ("multipart/related", (DICOM,)),
        ("multipart/*", (DICOM,)),
        (f"{RELATED}; transfer-syntax=*", (DICOM,)),
        (f"{RELATED}; transfer-syntax=1.2.840.10008.1.2.1", (DICOM,)),
        (f"{RELATED}, application/json", (JSON, DICOM)),
        (f"{RELATED}, application/json;q=0.9", (DICOM, JSON)),
        # Java's and axios' clients that are generated from OpenAPI.
        (f"application/json, {RELATED}, application/problem+json", (JSON, DICOM)),
        (f"application/json, {RELATED};q=0.9", (JSON, DICOM)),
        (f"application/json;q=0.5, {RELATED};q=0.6", (DICOM, JSON)),
        (f"{RELATED}, */*", (DICOM, JSON)),
        (f"{RELATED}, */*;q=0.1", (DICOM, JSON)),
        (f"*/*, {RELATED};q=0", (JSON,)),
        (f"{RELATED}; transfer-syntax=1.2.840.10008.1.2.4.50, {RELATED};q=0.2", (DICOM,)),
        (" , application/json ,, ", (JSON,)),
        # Java's HttpURLConnection.
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", (JSON, DICOM)),
        ("*", (JSON, DICOM)),
        ("application/json;q=0.1, *;q=.2", (DICOM, JSON)),
        ('application/json;note="a, b; q=0"', (JSON,)),
    ],
)
def test_what_a_client_takes(header: str | None, forms: tuple[Form, ...]) -> None:
    assert accepted_forms(header) == forms


@pytest.mark.parametrize(
    ("header", "forms"),
    [
        (None, (PNG, JSON)),
        ("*/*", (PNG, JSON)),
        ("image/*", (PNG,)),
        ("application/json", (JSON,)),
        ("image/png;q=0.5, application/json", (JSON, PNG)),
        # Java's client that is generated from OpenAPI.
        ("application/json, image/png, application/problem+json", (JSON, PNG)),
        ("image/png, application/json", (JSON, PNG)),
        ("image/png, application/json, */*;q=0.1", (JSON, PNG)),
        ("image/png, application/json;q=0.9", (PNG, JSON)),
        ("image/*, application/*", (PNG, JSON)),
        ("image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", (PNG, JSON)),
    ],
)
def test_what_a_client_takes_of_an_explanation(header: str | None, forms: tuple[Form, ...]) -> None:
    assert accepted_forms(header, EXPLANATION_FORMS) == forms


def test_a_refusal_says_what_there_is() -> None:
    with pytest.raises(NotAcceptable, match="image/png"):
        accepted_forms(RELATED, EXPLANATION_FORMS)
    with pytest.raises(NotAcceptable, match="multipart/related"):
        accepted_forms("image/png")


@pytest.mark.parametrize(
    "header",
    [
        "text/html",
        "application/dicom",
        'multipart/related; type="application/octet-stream"',
        f"{RELATED}; transfer-syntax=1.2.840.10008.1.2.4.50",
        "application/json;q=0",
        "*/*;q=0",
        "json",
        "application/json;q=2",
        "application/json;q=high",
        "*/json",
        "* /*",
        "application/json;q=.",
        "application/json text/html",
        "application/json, " * MAX_LENGTH,
        'application/json;a="',
    ],
)
def test_what_cannot_be_answered(header: str) -> None:
    with pytest.raises(NotAcceptable) as refused:
        accepted_forms(header)
    assert (refused.value.status, refused.value.code) == (406, "not_acceptable")
