"""Request bodies: how a client of each kind of server sends a file."""

import base64
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

BOUNDARY: Final = "bench-7f3a9c51d2e84b06"


class Form(StrEnum):
    """The kinds; the value is how the results name them."""

    RAW = "raw body"
    MULTIPART = "multipart"
    OPEN_INFERENCE = "JSON, base64"


@dataclass(frozen=True, slots=True)
class Body:
    """A whole request body and its media type."""

    content: bytes
    media_type: str


def encode(data: bytes, form: Form, field: str) -> Body:
    """A JPEG as the body of one request.

    Args:
        data: the file.
        form: the kind of body.
        field: the multipart field's or the input tensor's name; a raw body has none.
    """
    match form:
        case Form.RAW:
            return Body(data, "image/jpeg")
        case Form.MULTIPART:
            head = (
                f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="a.jpg"\r\n'
                "Content-Type: image/jpeg\r\n\r\n"
            )
            content = head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()
            return Body(content, f"multipart/form-data; boundary={BOUNDARY}")
        case Form.OPEN_INFERENCE:
            tensor = {
                "name": field,
                "shape": [1, 1],
                "datatype": "BYTES",
                "parameters": {"content_type": "base64"},
                "data": [base64.b64encode(data).decode()],
            }
            return Body(json.dumps({"inputs": [tensor]}).encode(), "application/json")
