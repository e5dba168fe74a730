"""Signals of programs that start servers, or make folders and mounts."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM)


def exit_on_signals() -> None:
    """Let SIGINT or SIGTERM end this process with SystemExit, its exit code 130 or 143: `finally` clauses clean up.

    Only the first does. `make` passes SIGTERM on to a process that has had it as one of its group: cleanup must end.
    """

    def leave(number: int, _: FrameType | None) -> None:
        for each in ENDING:
            signal.signal(each, lambda *_: None)  # not SIG_IGN, which a server that is started now would inherit
        sys.exit(128 + number)

    for number in ENDING:
        signal.signal(number, leave)


async def until_signal(work: Coroutine[None, None, int]) -> int:
    """Return what `work` returns, or 130 or 143 once SIGINT or SIGTERM has ended it: only the first cancels it."""
    task = asyncio.ensure_future(work)
    received: list[int] = []

    def end(number: int) -> None:
        if not received:
            task.cancel()
        received.append(number)

    for number in ENDING:
        asyncio.get_running_loop().add_signal_handler(number, end, number)
    await asyncio.wait((task,))
    return 128 + received[0] if task.cancelled() and received else task.result()
