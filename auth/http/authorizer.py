"""Authorization of auth's calls: whether a call needs a user's token, or the right to manage devices."""

from aiohttp import web

from access.bearer import Bearer
from access.claims import Verified
from auth.tokens.issuer import MANAGE_DEVICES
from runtime.http.problems import Problem


class Authorizer(Bearer):
    """Verifies the bearer tokens of requests to `auth`, and what they permit."""

    async def user(self, request: web.Request) -> Verified:
        """Return the claims of a user's own token; raise Problem 401, or 403 for a device's token."""
        claims = await self.claims(request)
        if claims.device is not None:
            raise Problem(403, "This needs a user's token, not a device's.", code="forbidden")
        return claims

    async def device_manager(self, request: web.Request) -> Verified:
        """Return the claims of a token that may manage its owner's devices; raise Problem 401 or 403."""
        return await self.claims(request, MANAGE_DEVICES)
