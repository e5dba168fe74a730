"""Token verification by others: `GET /user/token` for one token, the JWKS and `GET /revocations` for all."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from access.claims import Claims
from auth.http.authorizer import Authorizer
from auth.http.bodies import JwksAnswer, RevocationQuery, RevocationsAnswer
from auth.tokens.revocations import RevocationLog
from runtime.http.bodies import json_response
from runtime.http.fields import read_query
from runtime.http.operation import Operation


class TokenRoutes:
    """The calls of token holders and of the other services."""

    def __init__(
        self, authorizer: Authorizer, jwks: Callable[[], Awaitable[dict[str, Any]]], revocations: RevocationLog
    ) -> None:
        self._authorizer = authorizer
        self._jwks = jwks
        self._revocations = revocations

    def calls(self) -> list[Operation]:
        """Return the declared calls."""
        return [
            Operation(
                method="GET",
                path="/user/token",
                handler=self._show_claims,
                tag="tokens",
                summary="Check a token and show its claims",
                responses={200: Claims},
                secured=True,
            ),
            Operation(
                method="GET",
                path="/.well-known/jwks.json",
                handler=self._show_keys,
                tag="tokens",
                summary="Show the keys that verify tokens",
                responses={200: JwksAnswer},
            ),
            Operation(
                method="GET",
                path="/revocations",
                handler=self._show_revocations,
                tag="tokens",
                summary="List revoked tokens",
                query=RevocationQuery,
                responses={200: RevocationsAnswer},
                internal=True,
            ),
        ]

    async def _show_claims(self, request: web.Request) -> web.Response:
        return json_response((await self._authorizer.claims(request)).payload())

    async def _show_revocations(self, request: web.Request) -> web.Response:
        since = read_query(request, RevocationQuery).since
        revoked = await self._revocations.after(int(since) if since else None)
        return json_response(RevocationsAnswer.of(revoked))

    async def _show_keys(self, _: web.Request) -> web.Response:
        return json_response(await self._jwks())
