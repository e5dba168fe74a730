"""The fair semaphore: a share per owner, turns between owners, and no slot lost on cancellation."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from runtime.fair_semaphore import FairSemaphore


class Visits:
    """Who holds a slot, in order of admission."""

    def __init__(self, places: FairSemaphore) -> None:
        self.places = places
        self.inside: Counter[str] = Counter()
        self.came: list[str] = []
        self.go = asyncio.Semaphore(0)

    @asynccontextmanager
    async def visiting(self, *owners: str) -> AsyncIterator[None]:
        tasks = [asyncio.ensure_future(self.visit(owner)) for owner in owners]
        await turns()
        yield
        for _ in owners:
            self.go.release()
        await asyncio.gather(*tasks)

    async def visit(self, owner: str) -> None:
        async with self.places.slot(owner):
            self.inside[owner] += 1
            self.came.append(owner)
            await self.go.acquire()
            self.inside[owner] -= 1


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_owner_holds_its_share_and_the_others_go_ahead() -> None:
    visits = Visits(FairSemaphore(4, 2))
    async with visits.visiting(*["a"] * 5, "b", "c"):
        assert visits.inside == {"a": 2, "b": 1, "c": 1}
    assert visits.came.count("a") == 5


async def test_owners_take_turns_however_many_slots_each_requests() -> None:
    visits = Visits(FairSemaphore(1, 1))
    async with visits.visiting(*["a"] * 6, "b", "c", "c"):
        pass
    assert visits.came == ["a", "a", "b", "c", "a", "c", "a", "a", "a"]


async def test_a_place_that_only_those_with_their_share_want_stays_free_for_others() -> None:
    places = FairSemaphore(3, 2)
    crowd, other = Visits(places), Visits(places)
    async with crowd.visiting(*["a"] * 5), other.visiting("b"):
        assert (crowd.inside, other.inside) == ({"a": 2}, {"b": 1})


@pytest.mark.parametrize("when", ["waiting", "in its turn"])
async def test_who_gives_up_leaves_its_place_to_the_next(when: str) -> None:
    places = FairSemaphore(1, 1)
    visits = Visits(places)
    first = asyncio.ensure_future(visits.visit("a"))
    await turns()
    second, third = (asyncio.ensure_future(visits.visit(owner)) for owner in ("b", "c"))
    await turns()
    if when == "in its turn":  # the place is given, and the task does not know yet
        first.cancel()
        await asyncio.sleep(0)
    second.cancel()
    await turns()
    first.cancel()
    await turns()
    assert second.cancelled()
    assert visits.came == ["a", "c"]
    visits.go.release()
    await third
    async with asyncio.timeout(1), places.slot("a"):
        pass


async def test_no_place_is_lost_whatever_happens(rng: random.Random) -> None:
    places, inside = FairSemaphore(3, 2), Counter[str]()

    async def visit(owner: str) -> None:
        async with places.slot(owner):
            inside[owner] += 1
            try:
                assert inside[owner] <= 2
                assert inside.total() <= 3
                await asyncio.sleep(0.001 * rng.random())
            finally:
                inside[owner] -= 1

    visits = []
    for _ in range(2000):
        visits.append(asyncio.ensure_future(visit(rng.choice("abcdef"))))
        if rng.random() < 0.5:
            rng.choice(visits).cancel()
        if rng.random() < 0.2:
            await asyncio.sleep(0.001 * rng.random())
    ended = await asyncio.gather(*visits, return_exceptions=True)
    assert {type(outcome) for outcome in ended} <= {type(None), asyncio.CancelledError}
    async with asyncio.timeout(1):
        async with places.slot("a"), places.slot("a"), places.slot("b"):
            pass
