"""From a token to a session: verify the token, find its device, check revocations and limits."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import web
from multidict import MultiMapping

from access.bearer import TOKENS_IN_URL, RepeatedHeaderError, bearer_token, header_once
from access.claims import Claims, Verified
from access.revocations import RevocationKeys, RevocationList
from access.tokens import TokenError, TokenVerifier
from gateway.limits.connections import ConnectionLimits, TooManyConnections, TooManyDevices
from gateway.session import RENEWAL_BURST, Session
from readings.reading import ID_PATTERN, Defaults
from runtime.http.addresses import ClientAddresses, network_of

SCOPE = "readings:write"
# When a device should retry while the keys, or the list of revoked tokens, have not been fetched.
RETRY_AFTER_MS = 2000


class AdmissionDenied(Exception):
    """A client that is not admitted, or a token that is not accepted; `code` is the protocol's."""

    def __init__(
        self, code: str, message: str, retry_after_ms: int | None = None, *, limit: int | None = None, scope: str = ""
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_ms = retry_after_ms
        self.limit = limit
        self.scope = scope

    @property
    def is_temporary(self) -> bool:
        """True when the same may be accepted later."""
        return self.retry_after_ms is not None

    def data(self) -> dict[str, Any]:
        """Return the fields of the problem sent over HTTP, or of `connect_error`'s `data`."""
        data: dict[str, Any] = {"code": self.code}
        if self.retry_after_ms is not None:
            data["retryAfterMs"] = self.retry_after_ms
        if self.limit is not None:
            data |= {"limit": self.limit, "scope": self.scope}
        return data


class Admission:
    """Admits devices: a socket acquires a slot first, then a session with its token; a request acquires both at once.

    Every admitted session has to be released.
    """

    def __init__(
        self, verifier: TokenVerifier, revocations: RevocationList, limits: ConnectionLimits, addresses: ClientAddresses
    ) -> None:
        self._verifier = verifier
        self._revocations = revocations
        self._limits = limits
        self._addresses = addresses

    async def open_slot(self, request: web.Request) -> Callable[[], None]:
        """Take a slot for a socket after the checks that need no token; temporary AdmissionDenied without one.

        Returns what releases it, to be called once.
        """
        if not self._revocations.loaded or not await self._verifier.ready():
            raise AdmissionDenied("unavailable", "tokens cannot be verified yet; try again", RETRY_AFTER_MS)
        address = network_of(self._addresses.of(request))
        try:
            self._limits.acquire_socket(address)
        except TooManyConnections as error:
            raise _too_many(error) from error
        return partial(self._limits.release_socket, address)

    async def admit(self, request: web.Request, auth: object = None, *, has_slot: bool = False) -> Session:
        """Verify the credentials in Socket.IO's `auth` or in headers, and begin a session; AdmissionDenied otherwise.

        `has_slot`: the request's socket counts for its address already.
        """
        if any(name in request.query for name in TOKENS_IN_URL):
            raise AdmissionDenied("unauthorized", "tokens in URLs end up in logs and are not accepted")
        token, requested_device = _credentials(auth, request.headers)
        claims = await self._claims(token)
        device = _device(claims, requested_device)
        address = "" if has_slot else network_of(self._addresses.of(request))
        # No await from here until the caller has recorded the session: a later revocation finds it.
        revocation_keys = self._require_active(claims)
        try:
            quota = self._limits.acquire_session(claims.owner, device, address)
        except TooManyConnections as error:
            raise _too_many(error) from error
        except TooManyDevices as error:
            raise AdmissionDenied("forbidden", "the owner has reached its limit of device ids") from error
        claim_sensor_type = partial(self._limits.claim_sensor_type, claims.owner)
        return Session(
            claims.owner,
            device,
            address,
            _defaults(claims),
            revocation_keys,
            claims.exp,
            quota,
            claim_sensor_type,
            receipts=isinstance(auth, dict) and auth.get("receipts") is True,
        )

    def release(self, session: Session) -> None:
        """End a session that `admit` began."""
        self._limits.release_session(session.owner, session.device, session.address)

    async def renew(self, session: Session, token: object) -> None:
        """Continue a session under another token of its owner and device; AdmissionDenied leaves it unchanged."""
        _count_renewal(session)
        claims = await self._claims(token)
        if claims.owner != session.owner or not claims.covers(session.device):
            raise AdmissionDenied("forbidden", "the token belongs to another owner or device")
        session.renew(self._require_active(claims), _defaults(claims), claims.exp)

    def is_revoked(self, session: Session) -> bool:
        """Return whether the session's token has been revoked since it was verified."""
        return self._revocations.is_revoked(session.revocation_keys)

    async def _claims(self, token: object) -> Verified:
        try:
            claims = await self._verifier.verify(token)
        except TokenError as error:
            raise _denied(error) from error
        if not claims.allows(SCOPE):
            raise AdmissionDenied("forbidden", f"the token lacks the scope {SCOPE}")
        return claims

    def _require_active(self, claims: Verified) -> RevocationKeys:
        try:
            return self._revocations.require_active(claims)
        except TokenError as error:
            raise _denied(error) from error


def _denied(error: TokenError) -> AdmissionDenied:
    return AdmissionDenied(error.code, str(error), RETRY_AFTER_MS if error.code == "unavailable" else None)


def _too_many(error: TooManyConnections) -> AdmissionDenied:
    exceeded = error.exceeded
    return AdmissionDenied(
        "rate_limited", str(error), exceeded.retry_after_ms, limit=exceeded.limit, scope=exceeded.scope
    )


def _count_renewal(session: Session) -> None:
    now = time.monotonic()
    if wait_s := session.renewals.wait_s(1, now):
        wait_ms = math.ceil(wait_s * 1000)
        raise AdmissionDenied("rate_limited", "too many tokens in a row", wait_ms, limit=RENEWAL_BURST, scope="device")
    session.renewals.take(1, now)


def _defaults(claims: Claims) -> Defaults:
    return Defaults(claims.sensor_type, claims.location)


def _credentials(auth: object, headers: MultiMapping[str]) -> tuple[object, object]:
    fields = auth if isinstance(auth, dict) else {}
    try:
        token, device = bearer_token(headers), header_once(headers, "X-Device-Id")
    except RepeatedHeaderError as error:
        raise AdmissionDenied("unauthorized", str(error)) from error
    return _agreed("token", fields.get("token"), token or None), _agreed("device", fields.get("device"), device)


def _agreed(what: str, in_auth: object, in_header: str | None) -> object:
    if in_auth is None:
        return in_header
    if in_header is not None and in_header != in_auth:
        raise AdmissionDenied(
            "unauthorized" if what == "token" else "forbidden", f"auth and headers name a different {what}"
        )
    return in_auth


def _device(claims: Claims, requested: object) -> str:
    if claims.device is not None:
        if requested is not None and requested != claims.device:
            raise AdmissionDenied("forbidden", "the token belongs to another device")
        return claims.device
    if requested is None or requested == "":
        raise AdmissionDenied("device_required", "a user's token needs the device's id")
    if not isinstance(requested, str) or not ID_PATTERN.fullmatch(requested):
        raise AdmissionDenied("device_required", "device must be 1 to 64 of A-Z a-z 0-9 _ . : -")
    if not claims.covers(requested):
        raise AdmissionDenied("forbidden", "the token is for other devices")
    return requested
