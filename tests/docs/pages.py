"""What stands in the pages for others to copy: tests run exactly that."""

import asyncio
import json
import os
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.integration.services import ROOT


def page(name: str) -> str:
    """Return the text of a page in docs/."""
    return (ROOT / "docs" / name).read_text()


def block(name: str, heading: str) -> str:
    """Return the code that stands under a heading of a page in docs/; there is one block."""
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page(name), re.DOTALL | re.MULTILINE)
    assert section, f"docs/{name} has no section {heading!r}"
    found = re.findall(r"^```\w+\n(.*?)^```$", section[1], re.DOTALL | re.MULTILINE)
    assert len(found) == 1, f"docs/{name}, {heading}: {len(found)} blocks"
    return str(found[0])


def replaced(text: str, changes: dict[str, str]) -> str:
    """Put in what is another here; every change must find its place."""
    for old, new in changes.items():
        assert old in text, f"it no longer says {old!r}"
        text = text.replace(old, new)
    return text


def written(folder: Path, name: str, text: str) -> Path:
    """Write a file of a test's own."""
    (folder / name).write_text(text)
    return folder / name


async def said(*command: str, environment: Mapping[str, str], cwd: Path | None = None) -> Any:
    """Run a program and return what it says, one JSON value; it has a minute."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=sys.stderr,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output
    return json.loads(output)
