"""Which versions have served, so that a rollback knows where to go back to."""

from collections.abc import Collection
from typing import Final

from service.errors import NoEarlierVersion

MAX_SERVED: Final = 32
"""So many versions are remembered to roll back to; activations are rare."""

Served = tuple[str, int]
"""Name of a model and number of its version."""


class History:
    """The versions that have served, in their order; the last one serves, or did before it was lost."""

    def __init__(self) -> None:
        self._served: list[Served] = []

    @property
    def last(self) -> Served | None:
        """The version that serves, or did before it was lost; None before the first one."""
        return self._served[-1] if self._served else None

    def note(self, version: Served) -> None:
        """A version serves from now on."""
        if version != self.last:
            self._served = [*self._served[1 - MAX_SERVED :], version]

    def before(self, name: str, versions: Collection[int]) -> tuple[int, int]:
        """Where a rollback goes to.

        Args:
            name: of the model.
            versions: that the store still has, with a manifest.

        Returns:
            The version's place, for :meth:`forget_from`, and its number.

        Raises:
            NoEarlierVersion: the model does not serve, or nothing of it did before.
        """
        last = self.last
        if last is None or last[0] != name:
            raise NoEarlierVersion("this model does not serve, so there is nothing to go back from")
        for place in range(len(self._served) - 2, -1, -1):
            # Without what is gone between them, the active version may come before itself.
            version = self._served[place]
            if version != last and version[0] == name and version[1] in versions:
                return place, version[1]
        raise NoEarlierVersion(
            "no other version of this model that is in the store has served since the start"
        )

    def forget_from(self, place: int) -> None:
        """Forgets a version and all that served after it: it is about to serve anew."""
        del self._served[place:]
