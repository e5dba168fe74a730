"""README's shell examples, line by line, and a shell that runs them."""

import asyncio
import os
import re
import shlex
from asyncio.subprocess import PIPE
from collections.abc import Iterator

from tools.settings_table import README

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_ELSEWHERE = ("split -l", "openapi-python-client")
_COMMENT = re.compile(r"\s+# .*$")


def shell_lines() -> list[str]:
    """Return every line of every shell example, including comments.

    Diagrams are left out, and so are the examples that other tests run: the block that sends an export back
    (tests/e2e/test_round_trip.py) and the client generators (tests/generated).
    """
    blocks = [text for language, text in _BLOCK.findall(README.read_text()) if not language]
    return [
        line
        for text in blocks
        if "──" not in text and not any(one in text for one in _ELSEWHERE)
        for line in text.splitlines()
    ]


def commands(*starts: str) -> list[str]:
    """Return the lines with one of these starts, without their comments."""
    return [_COMMENT.sub("", line) for line in shell_lines() if line.startswith(starts)]


def arguments_of_make_run() -> Iterator[tuple[list[str], str]]:
    """Yield the arguments of each `make run ARGS="…"`, and the line's comment."""
    for line in shell_lines():
        if (found := re.match(r'make run ARGS="([^"]*)"\s*(.*)', line)) is not None:
            yield shlex.split(found[1]), found[2]


async def shell(script: str, **variables: str) -> str:
    """Run a script in a shell that stops at the first failing command, and return its standard output."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script), env=os.environ | variables, stdout=PIPE, stderr=PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, (script, out.decode(), err.decode())
    return out.decode()
