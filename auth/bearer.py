"""Who is asking: from a request's Authorization header to verified claims, or to a refusal as RFC 6750 words it.

Tokens are taken from this header only: addresses end up in logs, and cookies travel without being asked.
"""

from aiohttp import web

from auth.standing import Standing
from auth.tokens import MANAGE_DEVICES
from runtime.problems import Problem
from runtime.tokens import Claims, TokenError, TokenVerifier

RETRY_AFTER_S = 2


class Bearer:
    """Reads and verifies the tokens of requests."""

    def __init__(self, verifier: TokenVerifier, standing: Standing) -> None:
        self._verifier = verifier
        self._standing = standing

    async def claims(self, request: web.Request) -> Claims:
        """Return the claims of the request's token; Problem 401 (or 503 while there are no keys)."""
        headers = request.headers.getall("Authorization", [])
        scheme, _, token = headers[0].strip().partition(" ") if len(headers) == 1 else ("", "", "")
        if scheme.lower() != "bearer":
            raise unauthorized("One Authorization header with a Bearer token is required.", challenge="Bearer")
        try:
            claims = await self._verifier.verify(token.strip())
            await self._standing.check(claims)
        except TokenError as error:
            if error.code == "unavailable":
                headers_503 = {"Retry-After": str(RETRY_AFTER_S)}
                raise Problem(503, str(error), code=error.code, headers=headers_503) from error
            raise unauthorized(str(error), code=error.code) from error
        return claims

    async def user(self, request: web.Request) -> Claims:
        """Return the claims of a user's own token; Problem 401 or 403."""
        claims = await self.claims(request)
        if claims.device is not None:
            raise Problem(403, "This needs a user's token, not a device's.", code="forbidden")
        return claims

    async def device_manager(self, request: web.Request) -> Claims:
        """Return the claims of a token that may manage its owner's devices; Problem 401 or 403."""
        claims = await self.claims(request)
        if not claims.allows(MANAGE_DEVICES):
            raise forbidden()
        return claims


def unauthorized(
    detail: str, *, code: str = "unauthorized", challenge: str = 'Bearer error="invalid_token"'
) -> Problem:
    """Return the 401 of a token that does not serve."""
    return Problem(401, detail, code=code, headers={"WWW-Authenticate": challenge})


def forbidden() -> Problem:
    """Return the 403 of a token whose scope does not reach."""
    challenge = f'Bearer error="insufficient_scope", scope="{MANAGE_DEVICES}"'
    detail = f"This needs a token with the scope {MANAGE_DEVICES}."
    return Problem(403, detail, code="forbidden", headers={"WWW-Authenticate": challenge})
