"""Background tasks that live as long as a block: `async with background(work(), name="…"):`.

A TaskGroup around a `yield` wraps whatever the body raises in an ExceptionGroup, which no `except` of the caller
expects. Here a single failure, of the body or of a task, is raised as it is; only several together stay a group.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

# A cancellation can get lost: when the awaited call finishes at the same moment, Python 3.11's `wait_for` returns its
# result and drops the cancellation. So cancel again after this time, which is longer than any task needs to clean up.
CANCEL_AGAIN_S = 3.0


async def _end(tasks: "list[asyncio.Task[None]]") -> None:
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)


@asynccontextmanager
async def background(*coroutines: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Run the coroutines as tasks while the body runs, and cancel them when it ends.

    A task that fails cancels the body, and its exception is raised here.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine, name=name) for coroutine in coroutines]
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
    raise failure  # outside the handler, so that the group does not become its context
