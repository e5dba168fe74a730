"""Calls of MongoDB at the same time, but only some: each needs a connection of its own."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

Result = TypeVar("Result")

# More gain little: MongoDB has as many cores at most, mostly.
CALLS_AT_ONCE = 8


async def gather_some(calls: Iterable[Awaitable[Result]]) -> list[Result]:
    """Return the results of all calls in their order, CALLS_AT_ONCE of them at a time. Raises the first error."""
    free = asyncio.Semaphore(CALLS_AT_ONCE)

    async def one(call: Awaitable[Result]) -> Result:
        async with free:
            return await call

    return await asyncio.gather(*(one(call) for call in calls))
