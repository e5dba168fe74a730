"""Calls the program's functions, plain or async; what they raise is logged, and stops nothing."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

# At most this many calls keep their reading in the file until they have ended: each call of a function that never ends
# would keep one more, beyond `max_pending`.
MOST_AWAITED = 1000
# How long `close` waits for functions that still run.
CLOSE_WITHIN_S = 1.0

_log = logging.getLogger("device")


async def outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of the program, plain or async, and return its result; raises what it raises, as an Exception."""
    result = _called(function, *arguments)
    return await awaited(result) if inspect.isawaitable(result) else result


def _called(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except asyncio.CancelledError as error:
        raise RuntimeError("it was cancelled") from error


async def awaited(result: Awaitable[Any]) -> Any:
    """Await it; a CancelledError of its own, as of a task that it awaits, must not pass for a cancellation of ours."""
    try:
        return await result
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError("it was cancelled") from error


class Handlers:
    """The calls that are under way."""

    def __init__(self) -> None:
        self._running: set[asyncio.Future[Any]] = set()

    def call(self, handler: Callable[..., Any], arguments: tuple[Any, ...], then: Callable[[], None]) -> None:
        """Call it; `then` follows when it has ended, but not if it is cut short.

        While MOST_AWAITED others run, `then` follows at once.
        """
        try:
            result = _called(handler, *arguments)
        except Exception:  # noqa: BLE001 - the program's function must not stop the sending
            _log.exception("A handler failed")
            result = None
        if not inspect.isawaitable(result):
            then()
            return
        task = asyncio.ensure_future(awaited(result))
        if len(self._running) >= MOST_AWAITED:
            then()
            then = _nothing
        self._running.add(task)
        task.add_done_callback(partial(self._ended, then))

    def _ended(self, then: Callable[[], None], task: "asyncio.Future[Any]") -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            _log.error("A handler failed", exc_info=error)
        then()

    async def close(self) -> None:
        """Wait for the calls that run, for 1 s at most; their functions are not cancelled."""
        if self._running:
            await asyncio.wait(self._running, timeout=CLOSE_WITHIN_S)


def _nothing() -> None:
    """Do nothing."""
