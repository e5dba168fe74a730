"""Some calls at the same time."""

import asyncio

import pytest

from persister.compaction.at_once import CALLS_AT_ONCE, gather_some


async def test_results_are_in_order_and_only_some_calls_run_at_a_time() -> None:
    running, most = 0, 0

    async def call(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(20 - number % 20):
            await asyncio.sleep(0)
        running -= 1
        return number

    assert await gather_some(call(number) for number in range(50)) == list(range(50))
    assert most == CALLS_AT_ONCE
    assert await gather_some(call(number) for number in range(0)) == []


async def test_after_an_error_the_calls_that_run_end_and_no_other_one_begins() -> None:
    begun: list[int] = []
    ended: list[int] = []

    async def call(number: int) -> None:
        begun.append(number)
        await asyncio.sleep(0)
        if number == 2:
            raise ConnectionError("away")
        await asyncio.sleep(0.01)
        ended.append(number)

    with pytest.raises(ConnectionError, match="away"):
        await gather_some(call(number) for number in range(50))
    assert begun == list(range(CALLS_AT_ONCE))
    assert ended == [number for number in begun if number != 2]
