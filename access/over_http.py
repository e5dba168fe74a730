"""What verifies tokens, kept fresh from an auth service in another process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

import aiohttp

from access.revocations import RevocationList, fetch_revocations_over_http
from access.tokens import KeySet, fetch_jwks_over_http


@dataclass(frozen=True, slots=True)
class AuthOverHttp:
    """The keys and revocations of one auth service, and the session in which it is asked."""

    session: aiohttp.ClientSession
    keys: KeySet
    revocations: RevocationList

    @classmethod
    @asynccontextmanager
    async def open(cls, auth_url: str, *, revocations_every_s: float) -> AsyncIterator[Self]:
        """Keep both fresh while the context is open; each is asked for once before it begins, answered or not."""
        async with (
            aiohttp.ClientSession() as session,
            KeySet(fetch_jwks_over_http(session, auth_url)).kept_fresh() as keys,
            RevocationList(
                fetch_revocations_over_http(session, auth_url), every_s=revocations_every_s
            ).kept_fresh() as revocations,
        ):
            yield cls(session, keys, revocations)
