"""Waiting for a condition, no longer than necessary."""

import asyncio
import time
from collections.abc import Awaitable, Callable

# Not a promise: what takes milliseconds takes many seconds where other tests have the processors.
WITHIN_S = 60.0


async def eventually(condition: Callable[[], Awaitable[bool]], what: str, timeout_s: float = WITHIN_S) -> None:
    """Check the condition every 20 ms until it holds; fail after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not await condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.02)
