"""The example devices of README, extracted and run as a reader would."""

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from testing.node import node_with
from tests.clients.streaming_clients import HERE
from tools.settings_table import README

LANGUAGES = ("python", "javascript")

_EXAMPLE = re.compile(r"^```(python|javascript|js)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LIBRARY = re.compile(r"from device import|require\(\"./device/js\"\)")
_COMMAND = re.compile(r"`[^`]*TOKEN=\$DEVICE_TOKEN (python|node) (\S+?)`")
_ACCEPTED = re.compile(r"accepted'?: (\d+)")


def examples() -> dict[str, str]:
    """Return the source of each device with a plain client by language, in README's order."""
    return {language: text for language, text in _EXAMPLE.findall(README.read_text()) if not _LIBRARY.search(text)}


def library_example(language: str) -> str:
    """Return the source of the device with the library in this language, python or js."""
    found = (text for name, text in _EXAMPLE.findall(README.read_text()) if name == language and _LIBRARY.search(text))
    (text,) = found
    return str(text)


def file_names(program: str) -> set[str]:
    """Return the names that README's commands give the examples that this program, python or node, runs."""
    return {name for runs, name in _COMMAND.findall(README.read_text()) if runs == program}


class ReadmeDevice:
    """A running example device and its output, standard error included."""

    def __init__(self, language: str, device: str, process: Process) -> None:
        self.language = language
        self.device = device
        self.process = process
        self.lines: list[str] = []

    def __repr__(self) -> str:
        return f"{self.language}, {self.process.returncode=}, output:\n" + "\n".join(self.lines)

    @property
    def accepted(self) -> int:
        """The number of readings acknowledged as accepted."""
        return sum(int(found) for found in _ACCEPTED.findall("\n".join(self.lines)))

    def count(self, text: str) -> int:
        return sum(text in line for line in self.lines)

    async def wait_for_accepted(self, more: int, within_s: float = 40) -> None:
        """Return when `more` further readings are accepted."""
        await self.until_accepted(self.accepted + more, within_s)

    async def until_accepted(self, accepted: int, within_s: float = 40) -> None:
        try:
            async with asyncio.timeout(within_s):
                while self.accepted < accepted:
                    assert self.process.returncode is None, self
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"not {accepted} accepted within {within_s:g} s: {self}") from None

    async def wait_for_output(self, text: str, times: int = 1, within_s: float = 40) -> None:
        try:
            async with asyncio.timeout(within_s):
                while self.count(text) < times:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"no {text!r} within {within_s:g} s: {self}") from None

    async def wait_for_exit(self, within_s: float = 40) -> int:
        """Wait for its exit and return the exit code."""
        return await asyncio.wait_for(self.process.wait(), within_s)


@asynccontextmanager
async def readme_device(language: str, url: str, device: str, token: str) -> AsyncIterator[ReadmeDevice]:
    """Run README's device of this language; it is killed on exit of the context."""
    text = examples()[language]
    command = (
        [sys.executable, "-c", text] if language == "python" else [node_with(HERE, "socket.io-client"), "-e", text]
    )
    environment = os.environ | {"URL": url, "DEVICE": device, "TOKEN": token}
    process = await asyncio.create_subprocess_exec(*command, cwd=HERE, env=environment, stdout=PIPE, stderr=STDOUT)
    running = ReadmeDevice(language, device, process)
    reading = asyncio.ensure_future(_read(running))
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


async def _read(running: ReadmeDevice) -> None:
    assert running.process.stdout
    async for line in running.process.stdout:
        running.lines.append(line.decode().rstrip())
