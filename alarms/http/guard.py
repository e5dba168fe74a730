"""Who may do what under `/alarms`: owners, with the scope `alarms:manage`, and what is written to the audit log."""

from aiohttp import web

from access.bearer import Bearer, forbidden
from access.claims import Verified
from runtime.http.addresses import ClientAddresses
from runtime.http.problems import Problem
from runtime.logs import logger

log = logger("alarms.audit")

SCOPE = "alarms:manage"


class AlarmsGuard:
    """Admits owners to their own rules and alarms."""

    def __init__(self, bearer: Bearer, addresses: ClientAddresses) -> None:
        self._bearer = bearer
        self._addresses = addresses

    async def viewer(self, request: web.Request) -> Verified:
        """Return the claims of a token with the scope; an API key limited to devices sees the alarms of those."""
        claims = await self._bearer.claims(request, SCOPE)
        if claims.device is not None:
            raise forbidden(SCOPE)
        return claims

    async def owner(self, request: web.Request) -> Verified:
        """Return the claims of a token with the scope that is not limited to devices."""
        claims = await self.viewer(request)
        if claims.devices is not None:
            raise Problem(403, "This key is limited to devices; rules are for all of them.", code="forbidden")
        return claims

    async def session(self, request: web.Request) -> Verified:
        """Return the claims of a user's session with the scope: what this is for, no API key may do."""
        claims = await self.viewer(request)
        if claims.sid is None:
            raise Problem(403, "This needs a user who has logged in, not an API key.", code="forbidden")
        return claims

    def audit(self, request: web.Request, claims: Verified, event: str, **details: str) -> None:
        """Write an event to the audit log."""
        log.info(event, user=claims.owner, by=claims.holder, address=self._addresses.of(request), **details)
