"""A device of the JavaScript library, as a process of its own."""

import asyncio
import json
import os
import resource
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from testing.node import node_with

ROOT = Path(__file__).parent.parent.parent
LIBRARY = ROOT / "device" / "js"
SCRIPT = Path(__file__).with_name("javascript_device.js")


class DeviceError(Exception):
    """A call of the library has thrown."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error))
        self.name, self.code = error["name"], error.get("code")


class JavaScriptDevice:
    """A running device: what it printed, and calls to it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[tuple[str, Any]] = []
        self._calls = 0
        self._reading = asyncio.ensure_future(self._read())
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"{self.process.returncode=}, last events: {self.lines[-20:]}"

    async def _read(self) -> None:
        assert self.process.stdout
        async for line in self.process.stdout:
            entry = json.loads(line)
            self.lines.append((entry["event"], entry.get("data")))
            self._changed.set()
        self._changed.set()

    def all_of(self, event: str) -> list[Any]:
        return [data for name, data in self.lines if name == event]

    @property
    def offered(self) -> set[int]:
        return set(self.all_of("offered"))

    @property
    def kept(self) -> set[int]:
        return set(self.all_of("kept"))

    @property
    def told(self) -> set[int]:
        """The values of rejected and dropped readings."""
        return {data["reading"]["value"] for event in ("rejected", "dropped") for data in self.all_of(event)}

    async def until(self, event: str, times: int = 1, within_s: float = 20) -> Any:
        """Return the data of the event's last occurrence, once it has occurred that often."""
        try:
            async with asyncio.timeout(within_s):
                while len(found := self.all_of(event)) < times:
                    assert not self._reading.done(), self
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not {times} × {event!r} within {within_s:g} s: {self}") from None
        return found[-1]

    async def call(self, call: str, within_s: float = 60, **values: Any) -> Any:
        """Call the library; DeviceError if it throws."""
        self._calls += 1
        number = self._calls
        assert self.process.stdin
        self.process.stdin.write((json.dumps({"id": number, "call": call, **values}) + "\n").encode())
        async with asyncio.timeout(within_s):
            while True:
                for answer in self.all_of("answer"):
                    if answer["id"] == number:
                        if "error" in answer:
                            raise DeviceError(answer["error"])
                        return answer["result"]
                assert not self._reading.done(), self
                self._changed.clear()
                await self._changed.wait()

    async def until_pending(self, most: int, within_s: float = 20) -> None:
        """Return when at most that many readings are pending."""
        async with asyncio.timeout(within_s):
            while (await self.call("state"))["pending"] > most:
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """Send SIGKILL, and read what it printed before."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reading

    async def exit_code(self, within_s: float = 20) -> int:
        code = await asyncio.wait_for(self.process.wait(), within_s)
        await self._reading
        return code


@asynccontextmanager
async def javascript_device(
    url: str,
    token: str | Path,
    *,
    buffer: Path | str | None = None,
    first: int = 0,
    sensor_type: str = "temperature",
    max_file_bytes: int = 0,
    node: str = "",
    **options: Any,
) -> AsyncIterator[JavaScriptDevice]:
    """Run a device; it is killed on exit of the context. A `token` that is a file is read at each renewal.

    `node`: another Node.js than this machine's.
    """
    installed = node_with(LIBRARY, "socket.io-client")
    chosen = {"url": url, "buffer": None if buffer is None else str(buffer)} | options
    environment = os.environ | {
        "OPTIONS": json.dumps(chosen),
        "FIRST": str(first),
        "SENSOR_TYPE": sensor_type,
        ("TOKEN_FILE" if isinstance(token, Path) else "TOKEN"): str(token),
    }
    process = await asyncio.create_subprocess_exec(
        node or installed, str(SCRIPT), env=environment, stdin=PIPE, stdout=PIPE, stderr=sys.stderr, limit=2**22
    )
    if max_file_bytes:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    device = JavaScriptDevice(process)
    try:
        yield device
    finally:
        await device.kill()
