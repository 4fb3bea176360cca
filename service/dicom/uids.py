"""UIDs that follow from what an object is made of, so that one series gives the same objects twice."""

import hashlib
import re
import uuid
from typing import Final

UUID_ROOT: Final = "2.25"
"""Root of UIDs made of a UUID, for which nothing is registered (DICOM PS3.5 2024e, B.2)."""

MAX_LENGTH: Final = 64
"""Characters of a UID (PS3.5 2024e, 9.1)."""

MAX_ROOT_LENGTH: Final = 40
"""Longer roots would leave too few digits for two objects never to share a UID."""

_ROOT: Final = re.compile(r"[012](\.(0|[1-9][0-9]*))+")


def is_root(root: str) -> bool:
    """Whether UIDs can be made under it."""
    return len(root) <= MAX_ROOT_LENGTH and _ROOT.fullmatch(root) is not None


def derive(root: str, *parts: str) -> str:
    """The UID of some parts: always the same, and another one for other parts.

    Args:
        root: see :func:`is_root`.
        parts: what the object is made of, in order.

    Returns:
        At most 64 characters.

    Raises:
        ValueError: the root is none.
    """
    if not is_root(root):
        raise ValueError("not a UID root")
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    if root == UUID_ROOT:
        # Version 8 is the one for UUIDs of one's own making (RFC 9562, 5.8).
        bits = int.from_bytes(digest[:16]) & ~(0xF << 76 | 0x3 << 62) | 0x8 << 76 | 0x2 << 62
        return f"{root}.{uuid.UUID(int=bits).int}"
    room = MAX_LENGTH - len(root) - 1
    return f"{root}.{str(int.from_bytes(digest))[:room].lstrip('0') or '0'}"
