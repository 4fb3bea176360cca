"""Which results there have been, so that none is made again: one in the ledger's table of results each.

Nothing in it names a patient: it has hashes of UIDs, and of what the images hold.
"""

import sqlite3
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from service.pacs.series import Instance, Waiting

REMEMBERED_RESULTS: Final = 20_000
"""Results of which it is known that they need not be made again. An older one would be made of the same
UIDs once more, so that the destination has it already."""

_HASH_BYTES: Final = 16


def covers(connection: sqlite3.Connection, series: Waiting, model: str) -> bool:
    """Whether one result of a model is about all instances of a series.

    Args:
        connection: to the ledger.
        series: what may have to be analysed.
        model: see :func:`service.pacs.results.identity`.
    """
    wanted = {_hash_of(instance) for instance in series.instances}
    rows = connection.execute(
        "SELECT sops FROM results WHERE series = ? AND model = ?", (_hash(series.uid), model)
    ).fetchall()
    return any(wanted <= set(_split(hashes)) for (hashes,) in rows)


def remember(
    connection: sqlite3.Connection, series: str, model: str, covered: Iterable[Instance]
) -> int:
    """Within a transaction: notes a result, and forgets the oldest; gives its number.

    Args:
        connection: of the transaction.
        series: its UID.
        model: see :func:`service.pacs.results.identity`.
        covered: the images that the result is about.
    """
    (number,) = connection.execute(
        "INSERT INTO results (series, model, sops) VALUES (?, ?, ?) RETURNING id",
        (_hash(series), model, b"".join(sorted(map(_hash_of, covered)))),
    ).fetchone()
    connection.execute("DELETE FROM results WHERE id <= ?", (number - REMEMBERED_RESULTS,))
    return int(number)


def _hash(uid: str) -> bytes:
    return sha256(uid.encode()).digest()[:_HASH_BYTES]


def _hash_of(instance: Instance) -> bytes:
    return sha256(instance.sop.encode() + instance.digest).digest()[:_HASH_BYTES]


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[at : at + _HASH_BYTES] for at in range(0, len(hashes), _HASH_BYTES)]
