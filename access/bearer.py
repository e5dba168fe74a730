"""Bearer authentication: from a request's Authorization header to verified claims, or to a refusal as in RFC 6750.

Tokens are accepted in this header only: URLs end up in logs, and browsers send cookies unasked. A header that
identifies the client may occur only once (RFC 9110, 5.3): given two, a proxy and a service may each trust a different
one. This is the only copy of that rule; every service uses it.
"""

from collections.abc import Awaitable, Callable

from aiohttp import web
from multidict import MultiMapping

from access.claims import Claims, Verified
from access.tokens import TokenError, TokenVerifier
from runtime.http.problems import Problem

RETRY_AFTER_S = 2
TOKENS_IN_URL = ("token", "access_token", "accessToken", "auth")

RequireActive = Callable[[Verified], Awaitable[None]]
"""Raises TokenError when a verified token is no longer active."""


class RepeatedHeaderError(Exception):
    """A header that may occur only once is repeated."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the header {name} may occur only once")


def header_once(headers: MultiMapping[str], name: str) -> str | None:
    """Return the header's value, or None if it is missing; raise RepeatedHeaderError if it occurs more than once."""
    values = headers.getall(name, ())
    if len(values) > 1:
        raise RepeatedHeaderError(name)
    return values[0] if values else None


def bearer_token(headers: MultiMapping[str]) -> str | None:
    """Return the token of `Authorization: Bearer`, or None if there is none; raise RepeatedHeaderError for two."""
    scheme, _, token = (header_once(headers, "Authorization") or "").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


class Bearer:
    """Reads and verifies the bearer tokens of requests."""

    def __init__(self, verifier: TokenVerifier, require_active: RequireActive) -> None:
        self._verifier = verifier
        self._require_active = require_active

    async def claims(self, request: web.Request, scope: str = "") -> Verified:
        """Return the claims of the request's token.

        Raises Problem 401 for a token that is missing or not accepted, 403 if it lacks `scope`, 503 if it cannot be
        checked yet.
        """
        if any(name in request.query for name in TOKENS_IN_URL):
            raise unauthorized("Tokens in URLs end up in logs and are not accepted.", challenge="Bearer")
        token = required_token(request)
        try:
            claims = await self._verifier.verify(token)
            await self._require_active(claims)
        except TokenError as error:
            if error.code == "unavailable":
                headers_503 = {"Retry-After": str(RETRY_AFTER_S)}
                raise Problem(503, str(error), code=error.code, headers=headers_503) from error
            raise unauthorized(str(error), code=error.code) from error
        if scope and not claims.allows(scope):
            raise forbidden(scope)
        return claims


def required_token(request: web.Request) -> str:
    """Return the request's bearer token; raise Problem 401 if there is none, or more than one."""
    try:
        token = bearer_token(request.headers)
    except RepeatedHeaderError:
        token = None
    if token is None:
        raise unauthorized("One Authorization header with a Bearer token is required.", challenge="Bearer")
    return token


def unauthorized(
    detail: str, *, code: str = "unauthorized", challenge: str = 'Bearer error="invalid_token"'
) -> Problem:
    """Return Problem 401 for a token that is missing or not accepted."""
    return Problem(401, detail, code=code, headers={"WWW-Authenticate": challenge})


def require_covered(claims: Claims, device: str) -> None:
    """Raise Problem 403 for a device that the token does not cover, whether it exists or not."""
    if not claims.covers(device):
        raise Problem(403, "This token is for other devices.", code="forbidden")


def forbidden(scope: str) -> Problem:
    """Return Problem 403 for a token without the scope."""
    challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
    return Problem(
        403, f"This needs a token with the scope {scope}.", code="forbidden", headers={"WWW-Authenticate": challenge}
    )
