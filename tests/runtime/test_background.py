"""Background tasks: which failure is raised, and as what."""

import asyncio

import pytest

from runtime import background as background_module
from runtime.background import background


async def forever() -> None:
    await asyncio.Event().wait()


async def fails() -> None:
    raise LookupError("the task")


async def test_what_the_body_raises_comes_out_as_itself() -> None:
    raised = ValueError("the body")
    with pytest.raises(ValueError, match="the body") as caught:
        async with background(forever(), name="task"):
            raise raised
    assert caught.value is raised
    assert caught.value.__context__ is None


async def test_a_group_that_the_body_raises_stays_that_group() -> None:
    raised = ExceptionGroup("the body's own", [ValueError()])
    with pytest.raises(ExceptionGroup) as caught:
        async with background(forever(), name="task"):
            raise raised
    assert caught.value is raised


async def test_a_task_that_fails_ends_the_body_and_comes_out_as_itself() -> None:
    with pytest.raises(LookupError, match="the task"):
        async with background(fails(), forever(), name="task"):
            await asyncio.Event().wait()


async def test_two_failures_come_out_together() -> None:
    async def body() -> None:
        async with background(fails(), name="task"):
            try:
                await asyncio.Event().wait()
            finally:
                raise ValueError("the body")

    with pytest.raises(ExceptionGroup) as caught:
        await body()
    assert {type(error) for error in caught.value.exceptions} == {LookupError, ValueError}


async def test_the_task_ends_with_the_body_and_a_cancelled_body_stays_cancelled() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with background(work(), name="task"):
        await asyncio.sleep(0)
    assert ended.is_set()

    async def body() -> None:
        async with background(forever(), name="task"):
            await asyncio.Event().wait()

    running = asyncio.create_task(body())
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_task_that_loses_its_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_module, "CANCEL_AGAIN_S", 0.05)
    lost = 0

    async def loses_two() -> None:
        nonlocal lost
        while lost < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
        await asyncio.Event().wait()

    async with asyncio.timeout(5):
        async with background(loses_two(), name="task"):
            await asyncio.sleep(0)
    assert lost == 2
