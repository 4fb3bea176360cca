"""A request's slices: how they are let in, and that each of them is counted once."""

import asyncio

import pytest

from contract.preprocessing import DEFAULT_SPEC
from service.buffers import Buffers, Claim
from service.jobs import Group, Job, Upload
from tests.support.service import RULES

SHARE = 3


class Door:
    """Lets jobs of a group in, and settles them there and then if told to.

    Attributes:
        room: how many more are let in.
        started: those that were.
        settled: how many were counted as settled.
    """

    def __init__(self, room: int, *, at_once: bool) -> None:
        self.room = room
        self.started: list[Job] = []
        self.settled = 0
        self._at_once = at_once

    def start(self, job: Job) -> bool:
        if not self.room:
            return False
        self.room -= 1
        self.started.append(job)
        if self._at_once:
            job.group.settle()
        return True

    def count(self) -> None:
        self.settled += 1
        self.room += 1


def begun(door: Door, jobs: int) -> tuple[Group, list[Job]]:
    claim = Claim(Buffers(0))
    group = Group(door.start, door.count, SHARE, 100, claim, asyncio.get_running_loop())
    made = [
        Job(Upload(None, b""), DEFAULT_SPEC, RULES, deadline=0.0, group=group) for _ in range(jobs)
    ]
    group.begin(made)
    return group, made


@pytest.mark.parametrize("room", [1, 2, 10])
def test_what_is_settled_as_it_is_let_in_is_counted_once(room: int) -> None:
    async def count() -> None:
        door = Door(room, at_once=True)
        group, jobs = begun(door, 8)
        assert door.started == jobs
        assert door.settled == 8
        assert group.done.done()

    asyncio.run(count())


@pytest.mark.parametrize("room", [1, 2, 10])
def test_a_share_is_let_in_and_each_that_is_settled_lets_the_next_one_in(room: int) -> None:
    async def count() -> None:
        door = Door(room, at_once=False)
        group, jobs = begun(door, 8)
        for settled in range(8):
            assert door.started == jobs[: settled + min(room, SHARE)]
            assert not group.done.done()
            group.settle()
        assert group.done.done()

    asyncio.run(count())
