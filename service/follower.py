"""The store watcher: what ``latest`` or an alias comes to mean is verified, warmed up and swapped in.

It asks again and again instead of being told, which works on every file system, a network's too.
"""

import asyncio
import logging
from typing import NamedTuple

from contract.errors import StoreError, VersionNotFound
from contract.store import LATEST
from service.audit import Audit
from service.errors import ActivationRefused, OtherClasses, RuntimeLost, RuntimeUnusable
from service.kinds import Kinds
from service.registry import Registry

logger = logging.getLogger("service.follower")


class Found(NamedTuple):
    """What the selector stands for now, and what changes with any of its files."""

    number: int
    stamp: str


class Refused(NamedTuple):
    """What was found and refused, and the kinds that it had to have; None if it could have any."""

    found: Found
    kinds: Kinds | None


class Follower:
    """Acts when a selector comes to stand for another version; event loop only.

    It acts on changes alone: an activation or a rollback by hand stays until the selector stands for
    yet another version. One that was refused is tried again when its files change.

    That ``latest`` comes to stand for a lower number says that a version was deleted, and not that
    another one is to serve: what is loaded serves on, even if it is that version. Nor does it say
    anything when that number comes back: only one above all that it took before is new. Only where
    nothing serves, as the version that should is gone, is it replaced.

    That a version is the newest of its name does not say either that clients understand it: one with
    other classes than what serves is refused, until something else serves, or nothing. An alias is
    moved on purpose.

    Args:
        registry: what it activates in.
        name: the model.
        selector: ``latest`` or an alias.
        audit: is told of each swap, and of each that was refused.
        interval_seconds: how often it looks. What it finds must be the same twice, so that a version
            that is being copied into the store is left alone until the copy is complete.
    """

    def __init__(
        self,
        registry: Registry,
        name: str,
        selector: str,
        audit: Audit,
        interval_seconds: float,
    ) -> None:
        self._registry = registry
        self._name = name
        self._selector = selector
        self._audit = audit
        self._interval_seconds = interval_seconds
        # Of ``latest`` the number up to which none is new, of an alias the last one.
        self._taken: int | None = None
        self._last: int | None = None
        self._refused: Refused | None = None
        self._seen: Found | None = None
        self._trouble: str | None = None

    async def run(self) -> None:
        """Has the first version loaded, and follows from there; runs until cancelled."""
        found = await self._look()
        await self._registry.load()
        if found is not None and self._registry.active is None:
            self._refused = Refused(found, None)
        elif found is not None:
            self._taken = found.number
        self._last = None if found is None else found.number
        while True:
            await asyncio.sleep(self._interval_seconds)
            try:
                await self._act(await self._look())
            except Exception:
                logger.exception("following the store failed")

    async def _look(self) -> Found | None:
        try:
            found = await self._registry.store_calls.ask(self._find)
        except (StoreError, RuntimeUnusable) as error:
            self._complain(error.code)
            return None
        self._complain(None)
        return found

    def _find(self) -> Found:
        store = self._registry.store
        number = store.resolve(self._name, self._selector)
        return Found(number, store.stamp(self._name, number))

    def _complain(self, code: str | None) -> None:
        """Logs once that the selector stands for nothing, however often it is looked at."""
        if code is not None and code != self._trouble:
            fields = {"selector": self._selector, "code": code}
            logger.warning("the store has nothing to follow", extra={"fields": fields})
        self._trouble = code

    async def _act(self, found: Found | None) -> None:
        settled = found == self._seen
        self._seen = found
        registry = self._registry
        failure = None if registry.active else registry.failure
        # What served until now is being built anew, and is to serve again.
        if found is None or not settled or isinstance(failure, RuntimeLost):
            return
        last, self._last = self._last, found.number
        if self._selector != LATEST and found.number != last:
            # It was moved, even if what it stood for meanwhile was refused.
            self._taken = None
        is_gone = failure is not None and failure.code == VersionNotFound.code
        # Where nothing serves, no client has classes that another version could change.
        kinds = registry.kinds if self._selector == LATEST else None
        if self._is_old(found, kinds) or (found.number == self._taken and not is_gone):
            return
        fields = {"selector": self._selector, "version": found.number}
        active = registry.active
        if active is not None:
            served = active.identity["version"]
            if self._selector == LATEST and last is not None and found.number < last:
                logger.warning(
                    "the newest version was deleted; what serves goes on",
                    extra={"fields": {**fields, "deleted": last, "serves": served}},
                )
                # Those below it may never have served. Itself it may be put there again, mended.
                self._taken = max(last - 1, self._taken or 0)
            if self._selector == LATEST and self._taken is not None and found.number <= self._taken:
                return
            if served == found.number and active.identity["name"] == self._name:
                self._take(found)
                return
        logger.info("the selector stands for another version", extra={"fields": fields})
        try:
            change = await registry.activate(self._name, str(found.number), alike=kinds is not None)
        except ActivationRefused as refusal:
            of_kinds = refusal.code == OtherClasses.code
            self._refused = Refused(found, kinds if of_kinds else None)
            self._record(refusal.code, "failed")
        else:
            self._take(found)
            self._record(change.active.label, "done")

    def _record(self, result: str, outcome: str) -> None:
        target = f"{self._name}/{self._selector}"
        self._audit.record(
            "follow", who=None, request_id=None, result=result, target=target, outcome=outcome
        )

    def _is_old(self, found: Found, kinds: Kinds | None) -> bool:
        """Whether it was refused, and nothing has changed that could make it another answer."""
        refused = self._refused
        if refused is None or refused.found != found:
            return False
        return refused.kinds is None or refused.kinds == kinds

    def _take(self, found: Found) -> None:
        above = self._selector != LATEST or self._taken is None or found.number > self._taken
        self._taken = found.number if above else self._taken
