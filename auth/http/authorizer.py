"""Authorization of auth's calls: whether a call needs a user's session, or the right to read or manage devices."""

from aiohttp import web

from access.bearer import Bearer, forbidden, require_covered, unauthorized
from access.claims import Verified
from auth.tokens.issuer import MANAGE_DEVICES, READ
from runtime.http.problems import Problem


class Authorizer(Bearer):
    """Verifies the bearer tokens of requests to `auth`, and what they permit."""

    async def user(self, request: web.Request) -> Verified:
        """Return the claims of a user's session; raise Problem 401, or 403 for a device's token or an API key."""
        claims = await self.claims(request)
        if claims.device is not None:
            raise Problem(403, "This needs a user's token, not a device's.", code="forbidden")
        if claims.sid is None:
            raise Problem(403, "This needs a user who has logged in, not an API key.", code="forbidden")
        return claims

    async def device_manager(self, request: web.Request) -> Verified:
        """Return the claims of a token that may manage the device in the path, or all devices; Problem 401 or 403."""
        claims = await self.claims(request, MANAGE_DEVICES)
        if "id" in request.match_info:
            require_covered(claims, request.match_info["id"])
        elif claims.devices is not None:
            raise _limited()
        return claims

    async def claimant(self, request: web.Request) -> None:
        """Raise Problem 403 if a claim, which needs no token, comes with an API key that is limited to devices."""
        if "Authorization" not in request.headers:
            return
        try:
            claims = await self.claims(request)
        except Problem:  # a device whose token has ended claims itself again
            return
        if claims.devices is not None:
            raise _limited()

    async def device_reader(self, request: web.Request) -> Verified:
        """Return the claims of a token that may read or manage devices, and the one in the path; Problem 401 or 403.

        Where no device is in the path, the answer has to be limited to `devices` of the claims.
        """
        claims = await self.claims(request)
        if not claims.allows(READ) and not claims.allows(MANAGE_DEVICES):
            raise forbidden(READ)
        if "id" in request.match_info:
            require_covered(claims, request.match_info["id"])
        return claims


def _limited() -> Problem:
    return Problem(403, "This API key is limited to its devices.", code="forbidden")


def account_gone() -> Problem:
    """Return the refusal of a token whose account is deleted, or disabled, since the token was verified."""
    return unauthorized("The account is gone.", code="revoked")


def session_ended() -> Problem:
    """Return the refusal of a token whose session has ended since the token was verified."""
    return unauthorized("The session has ended.", code="revoked")
