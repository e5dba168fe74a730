"""Ends the process when its standard input ends, which the parent process closes."""

import asyncio
import signal
import sys


async def end_with_input() -> None:
    """Wait for the end of standard input and then end this process in order, as SIGTERM does."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    signal.raise_signal(signal.SIGTERM)
