"""A program with the Python library, run as a process: it counts, and sends each number as the value of a reading.

Environment: URL, TOKEN (or TOKEN_FILE, read by a token function), BUFFER, START (the first number), RATE (a second),
MAX_PENDING, RECEIPTS, DISK_BYTES (BUFFER is then on a disk of its own). Every tenth reading has no value. It prints a
JSON line per fact, after the library has told it. Lines of standard input: `fill` and `empty` the disk; `flush` ends
it.
"""

import asyncio
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from device import BufferFailed, BufferInUse, Device, DeviceRefused
from tests.faults.disk import Disk


def say(**fact: Any) -> None:
    print(json.dumps(fact), flush=True)


async def token() -> str:
    return await asyncio.to_thread(Path(os.environ["TOKEN_FILE"]).read_text)


async def commands(done: asyncio.Event, disk: Disk | None) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while (line := (await reader.readline()).decode().strip()) != "flush" and line:
        assert disk
        (disk.fill if line == "fill" else disk.empty)()
        say(disk=line)
    done.set()


async def measure(device: Device, done: asyncio.Event) -> None:
    number, pause_s = int(os.environ["START"]), 1 / float(os.environ["RATE"])
    while not done.is_set():
        reading = {"value": number} if number % 10 else {"value": None, "unit": str(number)}
        try:
            await device.send(reading)
        except BufferFailed:
            say(failed=number)
        else:
            say(sent=number)
        number += 1
        await asyncio.sleep(pause_s)


async def main(disk: Disk | None) -> None:
    buffer = str(disk.folder / "readings.db") if disk else os.environ["BUFFER"]
    done = asyncio.Event()
    given = os.environ.get("TOKEN") or token
    pending, receipts = int(os.environ.get("MAX_PENDING", "100000")), "RECEIPTS" in os.environ
    try:
        async with Device(
            os.environ["URL"], token=given, buffer=buffer, receipts=receipts, max_pending=pending
        ) as device:
            device.on_rejected(lambda reading, code, _: say(rejected=int(reading["unit"]), code=code))
            device.on_dropped(lambda reading: say(dropped=reading["value"] or int(reading["unit"])))
            say(open=device.pending)
            asking = asyncio.create_task(commands(done, disk))
            await measure(device, done)
            try:
                await device.flush(60)
            except DeviceRefused as refused:
                say(refused=refused.code)
            else:
                say(flushed=device.pending)
            await asking
    except BufferInUse as error:
        say(in_use=str(error))


with ExitStack() as stack:
    size = int(os.environ.get("DISK_BYTES", "0"))
    small = stack.enter_context(Disk(Path(os.environ["BUFFER"]), size)) if size else None
    say(small=bool(small and small.small))
    asyncio.run(main(small))
