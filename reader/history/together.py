"""Runs the queries of one request side by side."""

import asyncio
from collections.abc import Awaitable, Callable


async def together(fetch: Callable[[], Awaitable[None]], count: int) -> None:
    """Run `fetch` several times at once; when one fails, the others end, too."""
    tasks = [asyncio.ensure_future(fetch()) for _ in range(count)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for one in tasks:
            one.cancel()
