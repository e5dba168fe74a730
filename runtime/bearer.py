"""Who is asking: from a request's Authorization header to verified claims, or to a refusal as RFC 6750 words it.

Tokens are taken from this header only: addresses end up in logs, and cookies travel without being asked.
"""

from collections.abc import Awaitable, Callable

from aiohttp import web

from runtime.problems import Problem
from runtime.tokens import TokenError, TokenVerifier, Verified

RETRY_AFTER_S = 2
TOKENS_IN_URL = ("token", "access_token", "accessToken", "auth")

InForce = Callable[[Verified], Awaitable[None]]
"""Raises TokenError when verified claims no longer stand."""


class Bearer:
    """Reads and verifies the tokens of requests."""

    def __init__(self, verifier: TokenVerifier, in_force: InForce) -> None:
        self._verifier = verifier
        self._in_force = in_force

    async def claims(self, request: web.Request, scope: str = "") -> Verified:
        """Return the claims of the request's token; Problem 401, 403 without the scope, 503 while there are no keys."""
        if any(name in request.query for name in TOKENS_IN_URL):
            raise unauthorized("Tokens in addresses end up in logs and are not taken.", challenge="Bearer")
        headers = request.headers.getall("Authorization", [])
        scheme, _, token = headers[0].strip().partition(" ") if len(headers) == 1 else ("", "", "")
        if scheme.lower() != "bearer":
            raise unauthorized("One Authorization header with a Bearer token is required.", challenge="Bearer")
        try:
            claims = await self._verifier.verify(token.strip())
            await self._in_force(claims)
        except TokenError as error:
            if error.code == "unavailable":
                headers_503 = {"Retry-After": str(RETRY_AFTER_S)}
                raise Problem(503, str(error), code=error.code, headers=headers_503) from error
            raise unauthorized(str(error), code=error.code) from error
        if scope and not claims.allows(scope):
            raise forbidden(scope)
        return claims


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
