"""Which form of an answer a client wants: its ``Accept`` header.

Sources: RFC 9110, 12.5.1; DICOM PS3.18 2024e, 8.7.
"""

import re
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Final, NamedTuple

from starlette.datastructures import Headers

from service.errors import NotAcceptable

EXPLICIT_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
"""The only transfer syntax in which results are written, and the default (PS3.18 2024e, 8.7.3.5.2)."""

MAX_LENGTH: Final = 4096
"""Characters of an ``Accept`` header that are looked at; browsers send some 150."""

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# Java's HttpURLConnection, before JDK 19, says `*` for any and a quality of `.2`.
_RANGE: Final = re.compile(rf"({_WORD})/({_WORD})\s*|\*\s*(?=[;,]|$)")
_PARAMETER: Final = re.compile(
    rf";\s*(?:({_WORD})=({_WORD}(?:/{_WORD})?|\"(?:[^\"\\]|\\.)*\")\s*)?"
)
_QUALITY: Final = re.compile(r"0(\.[0-9]{0,3})?|\.[0-9]{1,3}|1(\.0{0,3})?")
_SEPARATOR: Final = re.compile(r"[\s,]*")


_NO_PARAMETERS: Final[Mapping[str, str]] = {}


def accept_of(headers: Headers) -> str | None:
    """A request's ``Accept``, of which several lines are one list (RFC 9110, 5.3); None without one."""
    return ", ".join(headers.getlist("accept")) or None


class Form(Enum):
    """The forms of answers: media type and the parameters that tell it from others."""

    JSON = ("application", "json", _NO_PARAMETERS)
    DICOM = (
        "multipart",
        "related",
        {"type": "application/dicom", "transfer-syntax": EXPLICIT_LITTLE_ENDIAN},
    )

    PNG = ("image", "png", _NO_PARAMETERS)
    DICOM_JSON = ("application", "dicom+json", _NO_PARAMETERS)

    def __init__(self, main: str, sub: str, parameters: Mapping[str, str]) -> None:
        self.main = main
        self.sub = sub
        self.parameters = parameters


PREDICTION_FORMS: Final[tuple[Form, ...]] = (Form.JSON, Form.DICOM)
EXPLANATION_FORMS: Final[tuple[Form, ...]] = (Form.PNG, Form.JSON)
"""Of a client that takes any, the first is preferred."""

STORE_FORMS: Final[tuple[Form, ...]] = (Form.DICOM_JSON, Form.JSON)
"""What an answer of STOW-RS may be called; it is the first."""

_NAMED: Final = 3
"""Specificity of a range without a wildcard."""

_REFUSALS: Final = {
    PREDICTION_FORMS: "predictions come as application/json or, of DICOM, as "
    'multipart/related; type="application/dicom" in explicit VR little endian',
    EXPLANATION_FORMS: "explanations come as image/png or application/json",
    STORE_FORMS: "the answer is application/dicom+json",
}


class MediaRange(NamedTuple):
    """One of the ranges that a client accepts; names in lower case."""

    main: str
    sub: str
    parameters: Mapping[str, str]
    quality: float

    def specificity(self, form: Form) -> int | None:
        """How closely it describes a form; None if it does not."""
        if self.main not in {"*", form.main} or self.sub not in {"*", form.sub}:
            return None
        for name, value in self.parameters.items():
            # A parameter that says nothing of a form, such as a charset, does not exclude it.
            if value not in {"*", form.parameters.get(name, value)}:
                return None
        known = sum(name in form.parameters for name in self.parameters)
        return (self.main != "*") + 2 * (self.sub != "*") + 4 * known


def accepted_forms(
    header: str | None, forms: tuple[Form, ...] = PREDICTION_FORMS
) -> tuple[Form, ...]:
    """The forms that a client takes, the one it prefers first.

    Of two forms with the same quality, one that it names is preferred to one of a wildcard, then JSON
    if it names both, as clients that are generated from OpenAPI do (parameters only say which form is
    meant), and then the first of ``forms``.
    Without a header it takes all.

    Raises:
        NotAcceptable: it takes none, or the header is malformed.
    """
    if header is None or header.strip() in {"", "*/*", "application/json"}:
        return (Form.JSON,) if header and "json" in header else forms
    ranges = list(media_ranges(header))
    ranked = []
    for form in forms:
        matching = [
            (specificity, media.quality)
            for media in ranges
            if (specificity := media.specificity(form)) is not None
        ]
        if matching:
            # The closest description decides, whatever wider ones say.
            specificity, quality = max(matching)
            if quality > 0:
                closeness = min(specificity, _NAMED)
                is_json = closeness == _NAMED and form is Form.JSON
                ranked.append((-quality, -closeness, not is_json, form))
    if not ranked:
        raise NotAcceptable(_REFUSALS[forms])
    ranked.sort(key=lambda item: item[:3])
    return tuple(form for *_, form in ranked)


def media_ranges(header: str) -> Iterator[MediaRange]:
    """The ranges of an ``Accept`` header, in its order.

    Raises:
        NotAcceptable: it is malformed.
    """
    malformed = NotAcceptable("the Accept header is malformed")
    if len(header) > MAX_LENGTH:
        raise malformed
    position = _end(_SEPARATOR, header, 0)
    while position < len(header):
        found = _RANGE.match(header, position)
        if found is None or (found[1] == "*" != found[2]):
            raise malformed
        main, sub = found[1] or "*", found[2] or "*"
        position = found.end()
        parameters: dict[str, str] = {}
        quality = 1.0
        while (parameter := _PARAMETER.match(header, position)) is not None:
            position = parameter.end()
            name, value = (parameter[1] or "").lower(), _unquoted(parameter[2] or "").lower()
            if name == "q":
                if not _QUALITY.fullmatch(value):
                    raise malformed
                quality = float(value)
            elif name:
                parameters[name] = value
        yield MediaRange(main.lower(), sub.lower(), parameters, quality)
        if position < len(header) and header[position] != ",":
            raise malformed
        position = _end(_SEPARATOR, header, position)


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return found.end() if found else position


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
