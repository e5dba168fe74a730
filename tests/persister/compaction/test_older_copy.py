"""A compactor under which the database becomes an older copy of itself does not go on from what it knows."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from persister.compaction.lease import Lease, LeaseLostError, Progress
from storage.places.names import BLOCKS
from storage.places.state import STATE
from tests.persister.compaction.world import World, reading


@pytest.mark.parametrize("change", ["renew", "save", "remove", "mark_blocks"])
async def test_a_holder_notices_an_older_copy_by_its_turn(world: World, change: str) -> None:
    await world.store([reading("d", 1, 1)])
    number = await world.seal()
    lease = Lease(world.database)
    assert await lease.acquire()
    blocks: Any = world.database[BLOCKS]
    copy = await blocks.find_one({"_id": STATE})
    await lease.renew()
    await blocks.replace_one({"_id": STATE}, copy)
    changes: dict[str, Callable[[], Awaitable[None]]] = {
        "renew": lease.renew,
        "save": partial(lease.save, Progress(number, b"uuid")),
        "remove": partial(lease.remove, number),
        "mark_blocks": lease.mark_blocks,
    }
    with pytest.raises(LeaseLostError):
        await changes[change]()
    assert await blocks.find_one({"_id": STATE}) == copy
    assert await lease.acquire(), "it begins again from what the copy says"
