"""Computations of some milliseconds, which would hold up the event loop."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

# More readings than this take longer than a switch of threads.
FEW_READINGS = 2048


async def in_thread_if_large(readings: int, compute: Callable[[], Result]) -> Result:
    """Return what a function computes of a number of readings, in a thread if they are many."""
    return compute() if readings <= FEW_READINGS else await asyncio.to_thread(compute)
