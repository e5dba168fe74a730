"""Who is asking: from a request's Authorization header to verified claims, or to a refusal as RFC 6750 words it.

Tokens are taken from this header only: addresses end up in logs, and cookies travel without being asked. A header that
says who asks stands once (RFC 9110, 5.3): of two, a proxy and a service may believe another one each.
"""

from collections.abc import Awaitable, Callable

from aiohttp import web
from multidict import MultiMapping

from access.tokens import TokenError, TokenVerifier, Verified
from runtime.http.problems import Problem

RETRY_AFTER_S = 2
TOKENS_IN_URL = ("token", "access_token", "accessToken", "auth")

InForce = Callable[[Verified], Awaitable[None]]
"""Raises TokenError when verified claims no longer stand."""


class RepeatedHeaderError(Exception):
    """A header that may stand once stands more often."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the header {name} may stand once")


def header_once(headers: MultiMapping[str], name: str) -> str | None:
    """Return the header's value, None where it is missing; RepeatedHeaderError where it stands more than once."""
    values = headers.getall(name, ())
    if len(values) > 1:
        raise RepeatedHeaderError(name)
    return values[0] if values else None


def bearer_token(headers: MultiMapping[str]) -> str | None:
    """Return what `Authorization: Bearer` holds, None where there is no such header; RepeatedHeaderError for two."""
    scheme, _, token = (header_once(headers, "Authorization") or "").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


class Bearer:
    """Reads and verifies the tokens of requests."""

    def __init__(self, verifier: TokenVerifier, in_force: InForce) -> None:
        self._verifier = verifier
        self._in_force = in_force

    async def claims(self, request: web.Request, scope: str = "") -> Verified:
        """Return the claims of the request's token; Problem 401, 403 without the scope, 503 while there are no keys."""
        if any(name in request.query for name in TOKENS_IN_URL):
            raise unauthorized("Tokens in addresses end up in logs and are not taken.", challenge="Bearer")
        token = required_token(request)
        try:
            claims = await self._verifier.verify(token)
            await self._in_force(claims)
        except TokenError as error:
            if error.code == "unavailable":
                headers_503 = {"Retry-After": str(RETRY_AFTER_S)}
                raise Problem(503, str(error), code=error.code, headers=headers_503) from error
            raise unauthorized(str(error), code=error.code) from error
        if scope and not claims.allows(scope):
            raise forbidden(scope)
        return claims


def required_token(request: web.Request) -> str:
    """Return the request's bearer token; Problem 401 when there is none, or more than one."""
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
    """Return the 401 of a token that does not serve."""
    return Problem(401, detail, code=code, headers={"WWW-Authenticate": challenge})


def forbidden(scope: str) -> Problem:
    """Return the 403 of a token whose scope does not reach."""
    challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
    return Problem(
        403, f"This needs a token with the scope {scope}.", code="forbidden", headers={"WWW-Authenticate": challenge}
    )
