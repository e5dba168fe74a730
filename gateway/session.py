"""From the token of a connect to a session: which owner and device everything on this socket is stored under."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from broker.intake import Intake
from broker.reading import ID_PATTERN, Defaults
from runtime.tokens import Claims, TokenError, TokenVerifier

SCOPE = "readings:write"
# How soon a device should try again when there are no keys yet.
RETRY_AFTER_MS = 2000
TOKENS_IN_URL = ("token", "access_token", "accessToken", "auth")


class Refused(Exception):
    """A connect that is not taken; `code` is the protocol's."""

    def __init__(self, code: str, message: str, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_ms = retry_after_ms

    def data(self) -> dict[str, Any]:
        """Return what the client finds in `connect_error`'s `data`."""
        if self.retry_after_ms is None:
            return {"code": self.code}
        return {"code": self.code, "retryAfterMs": self.retry_after_ms}


@dataclass(slots=True)
class Session:
    """One connected device. `expires_at` is in seconds since 1970."""

    owner: str
    device: str
    defaults: Defaults
    expires_at: int
    intake: Intake = field(init=False, repr=False)
    # Events whose confirm is still to come, and their size.
    in_flight_events: int = 0
    in_flight_bytes: int = 0

    def __post_init__(self) -> None:
        self.intake = Intake(self.owner, self.device, self.defaults)


async def open_session(verifier: TokenVerifier, auth: object, request: web.Request) -> Session:
    """Check who connects, from Socket.IO's `auth` or from headers; Refused says why not."""
    if any(name in request.query for name in TOKENS_IN_URL):
        raise Refused("unauthorized", "tokens in URLs end up in logs and are not taken")
    token, device = _credentials(auth, request.headers)
    try:
        claims = await verifier.verify(token)
    except TokenError as error:
        raise Refused(error.code, str(error), RETRY_AFTER_MS if error.code == "unavailable" else None) from error
    if not claims.allows(SCOPE):
        raise Refused("forbidden", f"the token lacks the scope {SCOPE}")
    defaults = Defaults(claims.sensor_type, claims.location)
    return Session(claims.owner, _device(claims, device), defaults, claims.exp)


def _credentials(auth: object, headers: Mapping[str, str]) -> tuple[object, object]:
    fields = auth if isinstance(auth, dict) else {}
    scheme, _, bearer = headers.get("Authorization", "").partition(" ")
    bearer = bearer.strip() if scheme.lower() == "bearer" else ""
    return (
        _agreed("token", fields.get("token"), bearer or None),
        _agreed("device", fields.get("device"), headers.get("X-Device-Id")),
    )


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
