"""`python -m auth …` as an operator runs it: a process of its own, its environment what is given."""

import asyncio
import os
import sys
from dataclasses import dataclass

from tests.auth.service import SECRET


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


async def auth(url: str, *arguments: str, stdin: bytes | str = "", **variables: str) -> Ran:
    """Run a command to its end."""
    it = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "auth", *arguments),
        env={"PATH": os.environ["PATH"], "AUTH_DATABASE_URL": url, "BCRYPT_COST": "4"} | variables,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await it.communicate(stdin.encode() if isinstance(stdin, str) else stdin)
    return Ran(it.returncode or 0, out.decode(), err.decode())


async def keys(url: str, *arguments: str, **variables: str) -> Ran:
    """Run `keys …` with the secret of the tests' services."""
    return await auth(url, "keys", *arguments, SIGNING_KEY_SECRET=SECRET, **variables)
