"""A process that refreshes a session and stops where the test wants to kill it: `DATABASE_URL TOKEN WHERE`.

`between`: the old token is marked as used, the new one is not there yet. `after`: both are committed, the answer is
not on its way. It says so on standard output, and waits.
"""

import asyncio
import sys
from typing import Any, NoReturn

from auth.accounts import User
from auth.sessions import Sessions
from auth.tokens.issuer import IssuedToken
from auth.tokens.revocations import RevocationLog
from database.connection import open_database

USER_AGENT = "the one that is killed"


class _Issuer:
    """Signs nothing: it is called only after the commit."""

    def for_user(self, user: User, sid: str) -> IssuedToken:
        raise NotImplementedError(user, sid)


async def _wait_to_be_killed(*_: Any) -> NoReturn:
    sys.stdout.write("here\n")
    sys.stdout.flush()
    await asyncio.Event().wait()
    raise AssertionError


async def _main(url: str, token: str, where: str) -> None:
    async with open_database(url, connections=2, timeout_s=60) as database:
        revocations = RevocationLog(database, access_s=3600, device_s=3600)
        issuer: Any = _Issuer()
        sessions: Any = Sessions(database, issuer, revocations, access_s=3600, refresh_s=3600)
        if where == "between":
            sessions._insert = _wait_to_be_killed
        try:
            await sessions.refresh(token, network="127.0.0.1", user_agent=USER_AGENT)
        except NotImplementedError:
            await _wait_to_be_killed()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
