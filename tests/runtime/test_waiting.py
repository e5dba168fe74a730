"""Work that a stop may cut short."""

import asyncio

import pytest

from runtime.waiting import StoppedError, done_before, unless_stopped


async def returns(value: str, after_s: float = 0.0) -> str:
    await asyncio.sleep(after_s)
    return value


async def raises() -> None:
    raise ValueError("of the work")


async def test_work_that_is_done_before_a_stop_gives_its_result_or_its_error() -> None:
    stop = asyncio.Event()
    assert await unless_stopped(returns("done"), stop) == "done"
    with pytest.raises(ValueError, match="of the work"):
        await unless_stopped(raises(), stop)


async def test_a_stop_cancels_work_and_waits_until_it_has_closed_what_it_has_open() -> None:
    stop, closed = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            closed.set()

    asyncio.get_running_loop().call_later(0.01, stop.set)
    with pytest.raises(StoppedError):
        await unless_stopped(work(), stop)
    assert closed.is_set()


async def test_after_a_stop_work_has_its_time_of_grace_and_no_more() -> None:
    stop = asyncio.Event()
    stop.set()
    assert await unless_stopped(returns("late", 0.05), stop, grace_s=5) == "late"
    with pytest.raises(StoppedError):
        await unless_stopped(returns("too late", 60), stop, grace_s=0.05)


async def test_a_cancelled_wait_cancels_the_work() -> None:
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    waiting = asyncio.ensure_future(unless_stopped(work(), asyncio.Event()))
    await began.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert cancelled.is_set()


async def test_waiting_for_an_event_leaves_the_work_alone() -> None:
    event = asyncio.Event()
    work = asyncio.ensure_future(returns("done", 0.1))
    assert not await done_before(work, event, timeout_s=0.01)
    event.set()
    assert not await done_before(work, event)
    event.clear()
    assert await done_before(work, event)
    assert await work == "done"
