"""The revocation list: polled from the issuer every 2 s, consulted whenever a token or a session is checked.

auth/tokens/revocations.py says which tokens an entry revokes. Whatever the issuer lists is revoked, whatever the local
clock says. The whole list is fetched every 10 minutes; an entry is dropped once two full lists in a row lacked it while
it had expired by this host's clock. So no clock jump, here or at the issuer, makes a revoked token valid again. While
the issuer is unreachable, the known entries stay. Services that keep sessions subscribe and are called when the list
grows.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime

import aiohttp
import msgspec

from access.claims import Verified
from access.tokens import TokenError
from runtime.background import background
from runtime.logs import logger

log = logger("access.revocations")

POLL_EVERY_S = 2.0
# Each poll overlaps the previous ones by this much: a row numbered before the last response may be committed after it.
OVERLAP_S = 30.0
FETCH_TIMEOUT_S = 2.5
# How often the whole list is fetched, to drop expired entries and to pick up missed ones.
ALL_EVERY_S = 600.0
# An entry without `gen` revokes every token, whatever its own `gen`.
_ANY_GEN = 2**63
_NOTHING = (-1, 0.0)

FetchRevocations = Callable[[str | None], Awaitable[bytes]]
"""Returns the response body of `GET /revocations?since=`; None requests every entry that still matters."""


class RevocationEntry(msgspec.Struct, frozen=True):
    """Revoked tokens: those with a lower `gen`, or all of them. An entry of an unknown kind revokes nothing."""

    kind: str
    id: str
    until: datetime | int
    gen: int | None = None

    @property
    def until_s(self) -> float:
        """When the last of these tokens expires, in seconds since 1970."""
        return self.until.timestamp() if isinstance(self.until, datetime) else self.until / 1000


class RevocationsResponse(msgspec.Struct, frozen=True):
    """The issuer's response to `GET /revocations`."""

    items: list[RevocationEntry]
    cursor: str | int


class RevocationKeys(msgspec.Struct, frozen=True, gc=False):
    """The claims by which a revocation can match a token."""

    jti: str
    owner: str
    gen: int
    sid: str | None
    device: str | None
    kid: str
    issuing_key: str | None = None


def revocation_keys_of(claims: Verified) -> RevocationKeys:
    """Return the claims needed to check later whether the token has been revoked."""
    return RevocationKeys(
        claims.jti, claims.owner, claims.gen, claims.sid, claims.device, claims.kid, claims.issuing_key
    )


class RevocationList:
    """The revocations of one issuer. Enter `kept_fresh` before checking tokens."""

    def __init__(self, fetch: FetchRevocations, *, every_s: float = POLL_EVERY_S) -> None:
        self._fetch = fetch
        self._every_s = every_s
        # By kind and id: the lowest `gen` that is still active, and when the entry expires (seconds since 1970).
        self._revoked: dict[tuple[str, str], tuple[int, float]] = {}
        # Cursors and when they were requested (monotonic seconds), oldest first.
        self._cursors: deque[tuple[float, str]] = deque()
        self._since: str | None = None
        self._loaded = False
        self._answered = False
        self._all_at = time.monotonic() + ALL_EVERY_S
        # Entries that the last full list lacked and that had expired by this host's clock.
        self._expired: set[tuple[str, str]] = set()
        self._outage_logged = False
        self._watchers: list[Callable[[], None]] = []
        # Raised with each device that was deleted.
        self.deletions = 0

    def __len__(self) -> int:
        return len(self._revoked)

    @property
    def loaded(self) -> bool:
        """True once the list has been fetched; it is kept while the issuer is unreachable."""
        return self._loaded

    def require_active(self, claims: Verified) -> RevocationKeys:
        """Return the token's revocation keys.

        Raises TokenError `revoked`, or `unavailable` until the list has been fetched once.
        """
        if not self._loaded:
            raise TokenError("unavailable", "the list of revoked tokens has not been fetched yet")
        keys = revocation_keys_of(claims)
        if self.is_revoked(keys):
            raise TokenError("revoked", "the token has been revoked")
        return keys

    def is_revoked(self, keys: RevocationKeys) -> bool:
        """Return whether a token has been revoked since it was verified."""
        ended = self._revoked
        if not ended:
            return False
        if ("jti", keys.jti) in ended or ("jti", keys.issuing_key) in ended or ("kid", keys.kid) in ended:
            return True
        of_owner = ended.get(("user", keys.owner), _NOTHING)[0]
        if keys.device is not None:
            # A user's `gen` covers the user's sessions only; deleting a user also revokes the device tokens.
            return of_owner == _ANY_GEN or keys.gen < ended.get(("device", keys.device), _NOTHING)[0]
        if keys.sid is None:  # an API key, which a new password ends by its `jti`, if at all
            return of_owner == _ANY_GEN
        return ("sid", keys.sid) in ended or keys.gen < of_owner

    def is_deleted(self, device: str) -> bool:
        """Return whether a device was deleted: known for some time longer than its last token would have been valid."""
        return self._revoked.get(("device", device), _NOTHING)[0] == _ANY_GEN

    @contextmanager
    def watched_by(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call `callback` whenever the list has grown."""
        self._watchers.append(callback)
        try:
            yield
        finally:
            self._watchers.remove(callback)

    async def check(self) -> None:
        """Raise TokenError when the last poll failed: for `/readyz`."""
        if not self._answered:
            raise TokenError("unavailable", "the list of revoked tokens cannot be fetched")

    @asynccontextmanager
    async def kept_fresh(self) -> AsyncIterator["RevocationList"]:
        """Poll the issuer now, and again every `every_s` seconds until the context ends."""
        await self.refresh()
        async with background(self._keep_fresh(), name="revocations"):
            yield self

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.refresh()
            except Exception:  # a bug: known entries stay, and the next poll may succeed
                self._answered = False
                log.exception("The list of revoked tokens could not be read.")

    async def refresh(self) -> bool:
        """Poll once; return False if the issuer is unreachable, which leaves the list unchanged."""
        polled_at = time.monotonic()
        everything = polled_at >= self._all_at
        if everything:  # if this fails, the next polls still fetch new entries
            self._all_at = polled_at + ALL_EVERY_S
        try:
            response = _decoder.decode(await self._fetch(None if everything else self._since))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
            if not self._outage_logged:
                self._outage_logged = True
                why = f"{type(error).__name__}: {error}"
                log.warning("The list of revoked tokens could not be fetched.", error=why, loaded=self._loaded)
            self._answered = False
            return False
        if self._outage_logged:
            self._outage_logged = False
            log.info("The list of revoked tokens is fetched again.")
        self._answered = self._loaded = True
        self._remember_cursor(polled_at, str(response.cursor))
        if self._merge(response.items):
            for callback in list(self._watchers):
                callback()
        if everything:
            self._drop_expired(response.items, time.time())
        return True

    def _merge(self, items: list[RevocationEntry]) -> bool:
        """Add new entries; return whether there were any."""
        grown = False
        for item in items:
            least, until = (_ANY_GEN if item.gen is None else item.gen), item.until_s
            known = self._revoked.get((item.kind, item.id))
            if known is not None and known[0] >= least and known[1] >= until:
                continue
            if known is not None:
                least, until = max(least, known[0]), max(until, known[1])
            self._revoked[item.kind, item.id] = (least, until)
            self.deletions += item.kind == "device" and least == _ANY_GEN
            grown = True
        return grown

    def _remember_cursor(self, now: float, cursor: str) -> None:
        self._cursors.append((now, cursor))
        while self._cursors and self._cursors[0][0] <= now - OVERLAP_S:
            self._since = self._cursors.popleft()[1]

    def _drop_expired(self, listed: list[RevocationEntry], now: float) -> None:
        """Drop expired entries that neither this full list nor the previous one (10 minutes ago) contains."""
        names = {(item.kind, item.id) for item in listed}
        expired = {name for name, (_, until) in self._revoked.items() if until <= now and name not in names}
        for name in expired & self._expired:
            del self._revoked[name]
        self._expired = expired


_decoder = msgspec.json.Decoder(RevocationsResponse)


def fetch_revocations_over_http(session: aiohttp.ClientSession, auth_url: str) -> FetchRevocations:
    """Return a function that fetches revocations from the auth service at `auth_url`."""
    url = auth_url.rstrip("/") + "/revocations"

    async def fetch(since: str | None) -> bytes:
        params = {} if since is None else {"since": since}
        timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT_S)
        async with session.get(url, params=params, timeout=timeout) as response:
            response.raise_for_status()
            return await response.read()

    return fetch
