"""What a version tells apart: clients understand one that tells the same apart as the one before it."""

from typing import NamedTuple, Self

from contract.manifest import Manifest


class Kinds(NamedTuple):
    """The classes of a version; in which order is nobody's business outside of it.

    Attributes:
        classes: all of them.
        tumors: those that mean a tumour.
    """

    classes: frozenset[str]
    tumors: frozenset[str]

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """The kinds of a version."""
        return cls(frozenset(manifest.classes), frozenset(manifest.tumor_classes))
