"""From a token to a session: who asks, for which device, whether the token is in force, and whether there is room."""

import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from aiohttp import web
from multidict import MultiMapping

from access.bearer import TOKENS_IN_URL, RepeatedHeaderError, bearer_token, header_once
from access.revocations import RevocationList
from access.tokens import Claims, TokenError, TokenVerifier, Verified
from gateway.limits.connections import Limits, TooMany, TooManyDevices
from gateway.session import Session
from readings.reading import ID_PATTERN, Defaults
from runtime.http.addresses import ClientAddresses, network_of

SCOPE = "readings:write"
# How soon a device should try again while keys, or the list of revoked tokens, have not been fetched.
RETRY_AFTER_MS = 2000
# To check a token costs as much as 30 readings: so many may be tried at once, and one more each second.
RENEWALS = 10
RENEWAL_EVERY_S = 1.0


class Refused(Exception):
    """Somebody who is not let in, or a token that is not taken; `code` is the protocol's."""

    def __init__(
        self, code: str, message: str, retry_after_ms: int | None = None, *, limit: int | None = None, scope: str = ""
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_ms = retry_after_ms
        self.limit = limit
        self.scope = scope

    @property
    def for_now(self) -> bool:
        """True when the same may be taken later."""
        return self.retry_after_ms is not None

    def data(self) -> dict[str, Any]:
        """Return what the client finds over HTTP in the problem, or in `connect_error`'s `data`."""
        data: dict[str, Any] = {"code": self.code}
        if self.retry_after_ms is not None:
            data["retryAfterMs"] = self.retry_after_ms
        if self.limit is not None:
            data |= {"limit": self.limit, "scope": self.scope}
        return data


class Admission:
    """Lets devices in: a socket has a place first, then a session with its token; a request has both at once.

    Each session that is admitted has to leave again.
    """

    def __init__(
        self, verifier: TokenVerifier, revocations: RevocationList, limits: Limits, addresses: ClientAddresses
    ) -> None:
        self._verifier = verifier
        self._revocations = revocations
        self._limits = limits
        self._addresses = addresses

    @asynccontextmanager
    async def place(self, request: web.Request) -> AsyncIterator[None]:
        """Hold a place for a socket; Refused, for now, says why there is none: what is known without a token."""
        if not self._revocations.loaded or not await self._verifier.ready():
            raise Refused("unavailable", "no token can be checked yet; come again", RETRY_AFTER_MS)
        address = network_of(self._addresses.of(request))
        try:
            self._limits.arrive(address)
        except TooMany as error:
            raise _too_many(error) from error
        try:
            yield
        finally:
            self._limits.depart(address)

    async def admit(self, request: web.Request, auth: object = None, *, placed: bool = False) -> Session:
        """Check who asks, from Socket.IO's `auth` or from headers; Refused says why not. `placed`: it has a place."""
        if any(name in request.query for name in TOKENS_IN_URL):
            raise Refused("unauthorized", "tokens in URLs end up in logs and are not taken")
        token, asked = _credentials(auth, request.headers)
        claims = await self._claims(token)
        device = _device(claims, asked)
        address = "" if placed else network_of(self._addresses.of(request))
        # No pause from here to the caller's own books: a revocation that comes later finds the session.
        marks = self._require_active(claims)
        try:
            allowance = self._limits.enter(claims.owner, device, address)
        except TooMany as error:
            raise _too_many(error) from error
        except TooManyDevices as error:
            raise Refused("forbidden", "the owner names more devices than may be") from error
        may_name = partial(self._limits.may_name, claims.owner)
        return Session(claims.owner, device, address, _defaults(claims), marks, claims.exp, allowance, may_name)

    def leave(self, session: Session) -> None:
        """End what `admit` began."""
        self._limits.leave(session.owner, session.device, session.address)

    async def renew(self, session: Session, token: object) -> None:
        """Let a session go on under another token of its owner and device; Refused leaves it as it is."""
        _count_renewal(session)
        claims = await self._claims(token)
        if claims.owner != session.owner or claims.device not in (None, session.device):
            raise Refused("forbidden", "the token is of another owner or device")
        session.renew(self._require_active(claims), _defaults(claims), claims.exp)

    def is_revoked(self, session: Session) -> bool:
        """Say whether the session's token has been revoked since."""
        return self._revocations.is_revoked(session.marks)

    async def _claims(self, token: object) -> Verified:
        try:
            claims = await self._verifier.verify(token)
        except TokenError as error:
            raise _refused(error) from error
        if not claims.allows(SCOPE):
            raise Refused("forbidden", f"the token lacks the scope {SCOPE}")
        return claims

    def _require_active(self, claims: Verified) -> Any:
        try:
            return self._revocations.require_active(claims)
        except TokenError as error:
            raise _refused(error) from error


def _refused(error: TokenError) -> Refused:
    return Refused(error.code, str(error), RETRY_AFTER_MS if error.code == "unavailable" else None)


def _too_many(error: TooMany) -> Refused:
    limited = error.limited
    return Refused("rate_limited", str(error), limited.retry_after_ms, limit=limited.limit, scope=limited.scope)


def _count_renewal(session: Session) -> None:
    now = time.monotonic()
    until = max(session.renewals_until, now) + RENEWAL_EVERY_S
    if (wait_s := until - now - RENEWALS * RENEWAL_EVERY_S) > 0:
        wait_ms = math.ceil(wait_s * 1000)
        raise Refused("rate_limited", "too many tokens in a row", wait_ms, limit=RENEWALS, scope="device")
    session.renewals_until = until


def _defaults(claims: Claims) -> Defaults:
    return Defaults(claims.sensor_type, claims.location)


def _credentials(auth: object, headers: MultiMapping[str]) -> tuple[object, object]:
    fields = auth if isinstance(auth, dict) else {}
    try:
        token, device = bearer_token(headers), header_once(headers, "X-Device-Id")
    except RepeatedHeaderError as error:
        raise Refused("unauthorized", str(error)) from error
    return _agreed("token", fields.get("token"), token or None), _agreed("device", fields.get("device"), device)


def _agreed(what: str, in_auth: object, in_header: str | None) -> object:
    if in_auth is None:
        return in_header
    if in_header is not None and in_header != in_auth:
        raise Refused("unauthorized" if what == "token" else "forbidden", f"auth and headers name another {what}")
    return in_auth


def _device(claims: Claims, asked: object) -> str:
    if claims.device is not None:
        if asked is not None and asked != claims.device:
            raise Refused("forbidden", "the token belongs to another device")
        return claims.device
    if asked is None or asked == "":
        raise Refused("device_required", "a user's token needs the device's id")
    if not isinstance(asked, str) or not ID_PATTERN.fullmatch(asked):
        raise Refused("device_required", "device must be 1 to 64 of A-Z a-z 0-9 _ . : -")
    return asked
