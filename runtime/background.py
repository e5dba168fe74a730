"""A task that lives as long as a block: `async with beside(work()):`.

A TaskGroup around a `yield` wraps whatever the body raises into an ExceptionGroup, which no `except` of the caller
expects. Here one failure comes out as itself, whether the body's or the task's; only several together stay a group.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

# A cancellation can be lost: where a call under it ends in the same moment, Python 3.11's `wait_for` gives the call's
# outcome and forgets the rest. Longer than any of our tasks takes to close what it has open.
AGAIN_AFTER_S = 3.0


async def _end(tasks: "list[asyncio.Task[None]]") -> None:
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=AGAIN_AFTER_S)


@asynccontextmanager
async def background(*works: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Run `works` while the body runs, and cancel them with its end. One that fails cancels the body and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work, name=name) for work in works]
            try:
                yield
            finally:
                await _end(tasks)
    except BaseExceptionGroup as several:
        if len(several.exceptions) > 1:
            raise
        failure = several.exceptions[0]
    else:
        return
    raise failure  # outside of the handler, so that the group does not become its context
