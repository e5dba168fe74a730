"""Whose token it has to be for which calls."""

from aiohttp import web

from access import bearer
from access.tokens import Verified
from auth.tokens.issuer import MANAGE_DEVICES
from runtime.http.problems import Problem


class Bearer(bearer.Bearer):
    """Reads and verifies the tokens of requests to `auth`."""

    async def user(self, request: web.Request) -> Verified:
        """Return the claims of a user's own token; Problem 401 or 403."""
        claims = await self.claims(request)
        if claims.device is not None:
            raise Problem(403, "This needs a user's token, not a device's.", code="forbidden")
        return claims

    async def device_manager(self, request: web.Request) -> Verified:
        """Return the claims of a token that may manage its owner's devices; Problem 401 or 403."""
        return await self.claims(request, MANAGE_DEVICES)
