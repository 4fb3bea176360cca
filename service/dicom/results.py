"""How tasks' results travel from :mod:`service.dicom.worker` to :mod:`service.dicom.workshop`.

Not pickled: the side that serves requests executes nothing of what the other one sends.
"""

import json
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

_HEAD: Final = struct.Struct("<Q")


class MadeObject(NamedTuple):
    """An object as a DICOM file, in explicit VR little endian."""

    modality: str
    sop_class_uid: str
    sop_instance_uid: str
    content: bytes


class Failed(NamedTuple):
    """Why there are no objects, without what the exception said: that may quote the patient."""

    kind: str
    where: str


def pack(result: Sequence[MadeObject] | Failed) -> bytes:
    """A result as bytes."""
    if isinstance(result, Failed):
        head = json.dumps(result._asdict()).encode()
        return _HEAD.pack(len(head)) + head
    head = json.dumps([[*item[:3], len(item.content)] for item in result]).encode()
    return b"".join([_HEAD.pack(len(head)), head, *(item.content for item in result)])


def unpack(answer: bytes) -> list[MadeObject] | Failed:
    """The result that :func:`pack` packed."""
    (size,) = _HEAD.unpack_from(answer)
    head = json.loads(answer[_HEAD.size : _HEAD.size + size])
    if isinstance(head, dict):
        return Failed(**head)
    position = _HEAD.size + size
    made = []
    for modality, sop_class_uid, sop_instance_uid, length in head:
        content = answer[position : position + length]
        made.append(MadeObject(modality, sop_class_uid, sop_instance_uid, content))
        position += length
    return made
