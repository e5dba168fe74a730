"""What README tells people to type: its shell examples, line by line, and how a shell runs them."""

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
    """Return every line of every shell example, comments and all.

    What is drawn is left out, and so is what is run elsewhere: the block that gives an export back by
    tests/e2e/test_round_trip.py, the generators of clients by tests/generated.
    """
    blocks = [text for language, text in _BLOCK.findall(README.read_text()) if not language]
    return [
        line
        for text in blocks
        if "──" not in text and not any(one in text for one in _ELSEWHERE)
        for line in text.splitlines()
    ]


def commands(*starts: str) -> list[str]:
    """Return the lines that start so, without their comments."""
    return [_COMMENT.sub("", line) for line in shell_lines() if line.startswith(starts)]


def arguments_of_make_run() -> Iterator[tuple[list[str], str]]:
    """Give what each `make run ARGS="…"` hands to onebox, and the line's comment."""
    for line in shell_lines():
        if (found := re.match(r'make run ARGS="([^"]*)"\s*(.*)', line)) is not None:
            yield shlex.split(found[1]), found[2]


async def shell(script: str, **variables: str) -> str:
    """Run it in a shell that stops at the first command that fails; return its standard output."""
    told = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script), env=os.environ | variables, stdout=PIPE, stderr=PIPE
    )
    out, err = await asyncio.wait_for(told.communicate(), 60)
    assert told.returncode == 0, (script, out.decode(), err.decode())
    return out.decode()
