"""API keys: who may call what. The file of keys holds their hashes only.

A line of the file is ``NAME ROLE[,ROLE] sha256:DIGEST``; empty lines and lines that begin with ``#``
are skipped. :mod:`service.keygen` makes one. A name may be on several lines with the same roles: while
its key is replaced by another one, both are valid.

A key is 256 random bits, so a single round of SHA-256 hides it: there is nothing to guess from a list.
"""

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Final, Self

from service.settings import SettingsError, unreadable

SECRET_BYTES: Final = 32
"""Random bytes of a key: as many as its hash has."""

NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
"""What a key may be called."""

_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")
_ABSENT: Final = bytes(32)


class Role(StrEnum):
    """What a key may do; neither includes the other."""

    PREDICT = "predict"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Key:
    """One key, as the service knows it.

    Attributes:
        name: who has it; logged with each request.
        roles: what it may do.
        digest: SHA-256 of what the client sends.
    """

    name: str
    roles: frozenset[Role]
    digest: bytes

    @classmethod
    def parse(cls, line: str) -> Self:
        """The key that a line of the file describes.

        Raises:
            ValueError: what is wrong with it; the text repeats nothing of it.
        """
        fields = line.split()
        if len(fields) != 3:
            raise ValueError("it must be NAME ROLE[,ROLE] sha256:DIGEST")
        name, roles, digest = fields
        if not NAME.fullmatch(name):
            raise ValueError("a name is made of a-z, 0-9 and -, 32 characters at most")
        known = {role.value for role in Role}
        if not known.issuperset(roles.split(",")):
            raise ValueError(f"a role is one of {', '.join(sorted(known))}")
        match = _DIGEST.fullmatch(digest)
        if match is None:
            raise ValueError(
                "the hash must be sha256: and 64 hex digits; a key itself never is here"
            )
        return cls(name, frozenset(map(Role, roles.split(","))), bytes.fromhex(match[1]))

    def line(self) -> str:
        """The line of the file."""
        return f"{self.name} {','.join(sorted(self.roles))} sha256:{self.digest.hex()}"


class Keyring:
    """The keys of a service, by name; those of a name have the same roles."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys: dict[str, list[Key]] = {}
        for key in keys:
            self._keys.setdefault(key.name, []).append(key)
        self._most = max(map(len, self._keys.values()), default=0)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The keys in a file.

        Raises:
            SettingsError: it cannot be read, a line is wrong, or there is no key in it.
            PassingFault: its disk fails.
        """
        try:
            # Editors of Windows put a mark before UTF-8.
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise SettingsError(
                f"BRAIN_API_KEYS_FILE: {path} is not UTF-8: save it as that, not as UTF-16"
            ) from error
        except OSError as error:
            raise unreadable(f"BRAIN_API_KEYS_FILE: cannot read {path}", error) from error
        keys: list[Key] = []
        # `splitlines` also breaks lines where no editor shows a new one: a key behind that would be
        # valid in a comment.
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip() or line.startswith("#"):
                continue
            try:
                key = Key.parse(line)
            except ValueError as error:
                raise SettingsError(f"BRAIN_API_KEYS_FILE: line {number}: {error}") from error
            same_name = [other for other in keys if other.name == key.name]
            if any(other.roles != key.roles for other in same_name):
                raise SettingsError(
                    f"BRAIN_API_KEYS_FILE: line {number}: this name has other roles further up"
                )
            if key in same_name:
                # Who took one of the lines out would think that the key is no longer valid.
                raise SettingsError(f"BRAIN_API_KEYS_FILE: line {number}: this key is there twice")
            keys.append(key)
        if not keys:
            raise SettingsError("BRAIN_API_KEYS_FILE: there is no key in it")
        return cls(keys)

    def find(self, presented: bytes) -> Key | None:
        """The key that a client sends, if it is one; takes as long where it is none."""
        name = presented.partition(b".")[0].decode("latin-1")
        digest = sha256(presented).digest()
        keys = self._keys.get(name, [])
        found = None
        for key in keys:
            if compare_digest(digest, key.digest):
                found = key
        for _ in range(self._most - len(keys)):
            compare_digest(digest, _ABSENT)
        return found


def make_key(name: str, roles: Iterable[Role]) -> tuple[str, Key]:
    """A new key: what the client sends, and what the service keeps of it."""
    presented = f"{name}.{secrets.token_urlsafe(SECRET_BYTES)}"
    return presented, Key(name, frozenset(roles), sha256(presented.encode()).digest())
