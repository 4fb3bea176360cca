"""What schemathesis is told about this service; it imports this file itself."""

from typing import Any

import schemathesis

from service.pacs.related import new_boundary, related_body, related_type
from service.schemas import Problem


@schemathesis.serializer("multipart/related")
def related(context: schemathesis.SerializationContext, value: Any) -> bytes:
    """A STOW-RS body: each item of a list a part of it, or the whole as one."""
    boundary = new_boundary()
    context.case.headers["Content-Type"] = related_type(boundary)
    items = value if isinstance(value, list) else [value]
    files = [item if isinstance(item, bytes) else str(item).encode() for item in items]
    return b"".join(related_body(boundary, files))


@schemathesis.check
def refusal_has_a_code(
    _context: schemathesis.CheckContext,
    response: schemathesis.Response,
    _case: schemathesis.Case[Any],
) -> None:
    """Whatever is refused says why, for a program as well."""
    (media_type,) = response.headers.get("content-type", [""])
    if response.status_code >= 400 and media_type != "application/dicom+json":
        problem = Problem.model_validate_json(response.content)
        assert (problem.status, bool(problem.code)) == (response.status_code, True)
