"""What `scripts.mutants` takes away: the handling of each fault, and the test that belongs to it."""

from typing import Final

from scripts.handlings import (
    connections,
    contract,
    crew,
    inference,
    pacs,
    requests,
    security,
    training,
)
from scripts.handlings.mutant import Mutant

__all__ = ["MUTANTS", "Mutant"]

MUTANTS: Final = (
    *contract.MUTANTS,
    *connections.MUTANTS,
    *requests.MUTANTS,
    *security.MUTANTS,
    *inference.MUTANTS,
    *crew.MUTANTS,
    *pacs.MUTANTS,
    *training.MUTANTS,
)
