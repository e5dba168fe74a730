"""Waits for work or for a stop, whichever comes first."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

Result = TypeVar("Result")

# How long cancelled work may take to close what it has open.
CANCEL_TIMEOUT_S = 3.0


class StoppedError(Exception):
    """A stop was requested before the work was done."""


async def done_before(work: "asyncio.Future[Any]", event: asyncio.Event, *, timeout_s: float | None = None) -> bool:
    """Wait until `work` is done, `event` is set or the timeout has passed; return whether `work` is done.

    `work` is not cancelled, and its exception is not raised here.
    """
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait((work, waiting), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    return work.done()


async def unless_stopped(work: Awaitable[Result], stop: asyncio.Event, *, grace_s: float = 0.0) -> Result:
    """Return the result of `work`; StoppedError if `stop` is set first and `work` is not done `grace_s` seconds later.

    Work that is not done is cancelled.
    """
    task = asyncio.ensure_future(work)
    try:
        if not await done_before(task, stop) and grace_s:
            await asyncio.wait((task,), timeout=grace_s)
        if not task.done():
            raise StoppedError
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=CANCEL_TIMEOUT_S)
