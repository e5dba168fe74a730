"""How others check tokens: `GET /user/token` for one, `GET /.well-known/jwks.json` for all."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from auth.bearer import Bearer
from runtime.bodies import json_response


class TokenRoutes:
    """The calls of whoever holds a token, and of the other services."""

    def __init__(self, bearer: Bearer, jwks: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        self._bearer = bearer
        self._jwks = jwks

    def routes(self) -> list[web.RouteDef]:
        """Return what to add to an application."""
        return [web.get("/user/token", self._show_claims), web.get("/.well-known/jwks.json", self._show_keys)]

    async def _show_claims(self, request: web.Request) -> web.Response:
        return json_response(await self._bearer.claims(request))

    async def _show_keys(self, _: web.Request) -> web.Response:
        return json_response(await self._jwks())
