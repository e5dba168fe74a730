"""Calls of MongoDB at the same time, but only some: each needs a connection of its own."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

Result = TypeVar("Result")

# More gain little: MongoDB seldom has more cores.
CALLS_AT_ONCE = 8


async def gather_some(calls: Iterable[Awaitable[Result]]) -> list[Result]:
    """Return the results of all calls in their order, CALLS_AT_ONCE of them at a time.

    After an error no further call is begun; the error is raised when the others have ended, so that nothing is written
    behind the caller's back.
    """
    left = enumerate(calls)
    results: dict[int, Result] = {}
    errors: list[Exception] = []

    async def work() -> None:
        while not errors and (following := next(left, None)) is not None:
            at, call = following
            try:
                results[at] = await call
            except Exception as error:  # noqa: BLE001 - raised below
                errors.append(error)

    await asyncio.gather(*(work() for _ in range(CALLS_AT_ONCE)))
    if errors:
        raise errors[0]
    return [results[at] for at in range(len(results))]
