"""Tokens that ended before their time: asked of the issuer every 2 s, and known when a token or a session is checked.

What an entry ends is told in auth/tokens/revocations.py. Whatever the issuer lists counts, whatever the time is here.
whole list is asked for every 10 minutes; an entry is forgotten when two in a row were without it while its own end was
past by the clock of this host. So no clock that leaps, here or there, lets a revoked token work again. While the issuer
is away, what is known stays. Who opens sessions watches: it is told when the list has grown.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime

import aiohttp
import msgspec

from access.tokens import TokenError, Verified
from runtime.background import background
from runtime.logs import logger

log = logger("access.revocations")

POLL_EVERY_S = 2.0
# Each question goes back by this much: what was written before the last answer may have been committed after it.
OVERLAP_S = 30.0
FETCH_TIMEOUT_S = 2.5
# How often the whole list is asked for: what is in it no more can be forgotten, what was missed is learned.
ALL_EVERY_S = 600.0
# An entry without `gen` ends every token, whatever its own is.
_ANY_GEN = 2**63

FetchRevocations = Callable[[str | None], Awaitable[bytes]]
"""Returns the answer to `GET /revocations?since=`; None asks for all that still matter."""


class Revocation(msgspec.Struct, frozen=True):
    """Tokens that ended: those of a lower `gen`, or all. Of a kind that is not known here it ends nothing."""

    kind: str
    id: str
    until: datetime | int
    gen: int | None = None

    @property
    def until_s(self) -> float:
        """When the last of these tokens would have expired, in seconds since 1970."""
        return self.until.timestamp() if isinstance(self.until, datetime) else self.until / 1000


class Answer(msgspec.Struct, frozen=True):
    """What the issuer answers."""

    items: list[Revocation]
    cursor: str | int


class RevocationKeys(msgspec.Struct, frozen=True, gc=False):
    """What a revocation can name a token by."""

    jti: str
    owner: str
    gen: int
    sid: str | None
    device: str | None
    kid: str


def revocation_keys_of(claims: Verified) -> RevocationKeys:
    """Return what is needed to know later whether the token has been revoked."""
    return RevocationKeys(claims.jti, claims.owner, claims.gen, claims.sid, claims.device, claims.kid)


class Revocations:
    """The list of one issuer. Enter `kept_fresh` before checking."""

    def __init__(self, fetch: FetchRevocations, *, every_s: float = POLL_EVERY_S) -> None:
        self._fetch = fetch
        self._every_s = every_s
        # By kind and id: the least `gen` that is still good, and until when that matters.
        self._ended: dict[tuple[str, str], tuple[int, float]] = {}
        # Cursors and when they were given out, the oldest first.
        self._cursors: deque[tuple[float, str]] = deque()
        self._since: str | None = None
        self._loaded = False
        self._answered = False
        self._all_at = time.monotonic() + ALL_EVERY_S
        # What the last answer to the question for everything was without, and was past by this host's clock.
        self._past: set[tuple[str, str]] = set()
        self._told = False
        self._watchers: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._ended)

    @property
    def loaded(self) -> bool:
        """True once the issuer has answered; what it said is kept while it is away."""
        return self._loaded

    def require_valid(self, claims: Verified) -> RevocationKeys:
        """Return the token's marks; TokenError `revoked`, or `unavailable` while the issuer was never heard."""
        if not self._loaded:
            raise TokenError("unavailable", "the list of revoked tokens has not been fetched yet")
        marks = revocation_keys_of(claims)
        if self.revoked(marks):
            raise TokenError("revoked", "the token has been revoked")
        return marks

    def revoked(self, marks: RevocationKeys) -> bool:
        """Say whether a token that was good has ended meanwhile."""
        ended = self._ended
        if not ended:
            return False
        if ("jti", marks.jti) in ended or ("kid", marks.kid) in ended:
            return True
        owner = ended.get(("user", marks.owner))
        if marks.device is None:
            if marks.sid is not None and ("sid", marks.sid) in ended:
                return True
            return owner is not None and marks.gen < owner[0]
        # A user's `gen` is about the user's own tokens; a user who is gone takes the devices along.
        if owner is not None and owner[0] == _ANY_GEN:
            return True
        device = ended.get(("device", marks.device))
        return device is not None and marks.gen < device[0]

    @contextmanager
    def watched_by(self, told: Callable[[], None]) -> Iterator[None]:
        """Call `told` each time that the list has grown."""
        self._watchers.append(told)
        try:
            yield
        finally:
            self._watchers.remove(told)

    async def check(self) -> None:
        """Raise when the issuer did not answer the last question: for `/readyz`."""
        if not self._answered:
            raise TokenError("unavailable", "the list of revoked tokens cannot be fetched")

    @asynccontextmanager
    async def kept_fresh(self) -> AsyncIterator["Revocations"]:
        """Ask now, and again every 2 s as long as the context lasts."""
        await self.refresh()
        async with background(self._keep_fresh(), name="revocations"):
            yield self

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.refresh()
            except Exception:  # a fault of ours: what is known stays, and the next question may go well
                self._answered = False
                log.exception("The list of revoked tokens could not be read.")

    async def refresh(self) -> bool:
        """Ask once; False when the issuer does not answer, and the list stays as it is."""
        asked_at = time.monotonic()
        everything = asked_at >= self._all_at
        if everything:  # where that fails, what is new is asked for meanwhile
            self._all_at = asked_at + ALL_EVERY_S
        try:
            answer = _decoder.decode(await self._fetch(None if everything else self._since))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
            if not self._told:  # once an outage
                self._told = True
                why = f"{type(error).__name__}: {error}"
                log.warning("The list of revoked tokens could not be fetched.", error=why, loaded=self._loaded)
            self._answered = False
            return False
        if self._told:
            self._told = False
            log.info("The list of revoked tokens is fetched again.")
        self._answered = self._loaded = True
        self._remember_cursor(asked_at, str(answer.cursor))
        if self._take(answer.items):
            for told in list(self._watchers):
                told()
        if everything:
            self._forget(answer.items, time.time())
        return True

    def _take(self, items: list[Revocation]) -> bool:
        """Add what is new; True when that was anything."""
        grown = False
        for item in items:
            least, until = (_ANY_GEN if item.gen is None else item.gen), item.until_s
            known = self._ended.get((item.kind, item.id))
            if known is not None and known[0] >= least and known[1] >= until:
                continue
            if known is not None:
                least, until = max(least, known[0]), max(until, known[1])
            self._ended[item.kind, item.id] = (least, until)
            grown = True
        return grown

    def _remember_cursor(self, now: float, cursor: str) -> None:
        self._cursors.append((now, cursor))
        while self._cursors and self._cursors[0][0] <= now - OVERLAP_S:
            self._since = self._cursors.popleft()[1]

    def _forget(self, listed: list[Revocation], today: float) -> None:
        """Forget what is past and was in neither this whole list nor the one of 10 minutes before."""
        names = {(item.kind, item.id) for item in listed}
        past = {name for name, (_, until) in self._ended.items() if until <= today and name not in names}
        for name in past & self._past:
            del self._ended[name]
        self._past = past


_decoder = msgspec.json.Decoder(Answer)


def fetch_revocations_over_http(session: aiohttp.ClientSession, auth_url: str) -> FetchRevocations:
    """Ask the auth service at `auth_url`."""
    url = auth_url.rstrip("/") + "/revocations"

    async def fetch(since: str | None) -> bytes:
        params = {} if since is None else {"since": since}
        timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT_S)
        async with session.get(url, params=params, timeout=timeout) as response:
            response.raise_for_status()
            return await response.read()

    return fetch
