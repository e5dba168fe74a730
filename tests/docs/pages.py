"""The code blocks of the pages in docs/, which tests run unchanged."""

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


def section(name: str, heading: str) -> str:
    """Return what stands under a heading of a page in docs/."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page(name), re.DOTALL | re.MULTILINE)
    assert found, f"docs/{name} has no section {heading!r}"
    return found[1]


def block(name: str, heading: str) -> str:
    """Return the only code block under a heading of a page in docs/."""
    found = re.findall(r"^```\w+\n(.*?)^```$", section(name, heading), re.DOTALL | re.MULTILINE)
    assert len(found) == 1, f"docs/{name}, {heading}: {len(found)} blocks"
    return str(found[0])


def replace_all(text: str, changes: dict[str, str]) -> str:
    """Replace each key by its value; every key must occur."""
    for old, new in changes.items():
        assert old in text, f"{old!r} no longer occurs"
        text = text.replace(old, new)
    return text


def write_file(folder: Path, name: str, text: str) -> Path:
    """Write a file and return its path."""
    (folder / name).write_text(text)
    return folder / name


async def run_json(*command: str, environment: Mapping[str, str], cwd: Path | None = None) -> Any:
    """Run a program for at most a minute; return its output, one JSON value."""
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
