"""`POST /devices/batch`: owners register many devices at once, and get their tokens.

Parsing, signing and encoding run in a thread, and each chunk is a transaction: other requests are answered meanwhile.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from access.bearer import unauthorized
from access.claims import Verified
from auth.audit import AuditLog
from auth.device_import import DeviceImport, Imported
from auth.errors import ExpiredKeyError, NoSuchUserError
from auth.http.authorizer import Authorizer, account_gone
from auth.http.batch_bodies import BatchAnswer, BatchQuery, BatchRow, DeviceBatch, answer_rows, csv_of
from auth.http.device_rows import CSV, MAX_BYTES, read_rows
from auth.tokens.issuer import IssuedToken, IssuingKey, TokenIssuer
from runtime.http.accept import preferred_media_type
from runtime.http.bodies import json_response, read_bytes, require_utf8
from runtime.http.fields import read_query
from runtime.http.operation import JSON, Operation
from runtime.http.problems import Problem

# 4 MiB at 1 Mbit/s take 34 s.
BODY_TIMEOUT_S = 60.0
# Bodies in memory: 64 MiB.
MAX_ADMITTED = 16
# More at once are no faster; some 100 MiB each for the worst body.
MAX_AT_WORK = 2
RETRY_AFTER_S = 2
_NAMES = {JSON: {JSON}, CSV: {CSV}}


class DeviceBatchRoutes:
    """The call of owners that registers devices in bulk; each owner has one import at a time."""

    def __init__(self, imports: DeviceImport, issuer: TokenIssuer, authorizer: Authorizer, audit: AuditLog) -> None:
        self._imports = imports
        self._issuer = issuer
        self._authorizer = authorizer
        self._audit = audit
        self._owners: set[str] = set()
        self._at_work = asyncio.Semaphore(MAX_AT_WORK)

    def calls(self) -> list[Operation]:
        """Return the declared call."""
        return [
            Operation(
                method="POST",
                path="/devices/batch",
                handler=self._register,
                tag="devices",
                summary="Register up to 10,000 devices at once",
                description="A JSON array, or CSV (`text/csv`) whose first line names the columns `name`, "
                "`sensorType` and `location`. Every row has its own outcome: the `id` of its device, or a `code`: "
                "`invalid`; `taken`, if you have a device with this name and other fields; `too_many_devices`; "
                "`unavailable`, if the row is to be sent again. A row whose device exists with the same fields "
                "gives that device, so that a request can be repeated. `tokens=true` issues a token for each. With "
                "`Accept: text/csv` the answer is CSV. Rows are committed in groups; one import of an owner at a "
                "time, 503 `busy` for another.",
                body=DeviceBatch,
                query=BatchQuery,
                responses={200: BatchAnswer},
                response_types=(JSON, CSV),
                problems=(403,),
                secured=True,
            )
        ]

    async def _register(self, request: web.Request) -> web.Response:
        claims = await self._authorizer.device_manager(request)
        query = read_query(request, BatchQuery)
        if request.content_type not in _NAMES:
            raise Problem(415, f"The body must be {JSON} or {CSV}.")
        require_utf8(request)
        with self._admitted(claims.owner):
            raw = await read_bytes(request, MAX_BYTES, timeout_s=BODY_TIMEOUT_S)
            async with self._at_work:
                items = await self._import(request, claims, raw, tokens=query.tokens)
                if preferred_media_type(request, _NAMES) == JSON:
                    return await asyncio.to_thread(json_response, BatchAnswer(items))
                body = await asyncio.to_thread(csv_of, items)
        return web.Response(body=body, content_type=CSV, charset="utf-8", headers={"Cache-Control": "no-store"})

    @contextmanager
    def _admitted(self, owner: str) -> Iterator[None]:
        if owner in self._owners or len(self._owners) >= MAX_ADMITTED:
            detail = "Another import is running; try again."
            raise Problem(503, detail, code="busy", headers={"Retry-After": str(RETRY_AFTER_S)})
        self._owners.add(owner)
        try:
            yield
        finally:
            self._owners.discard(owner)

    async def _import(self, request: web.Request, claims: Verified, raw: bytes, *, tokens: bool) -> list[BatchRow]:
        rows = await asyncio.to_thread(read_rows, raw, request.content_type)
        items: list[BatchRow] = []
        try:
            async for outcomes in self._imports.chunks(claims.owner, rows):
                imported = [outcome for outcome in outcomes if isinstance(outcome, Imported)]
                issued = await asyncio.to_thread(self._issue, claims, imported) if tokens else None
                self._audit.devices_imported(request, claims, imported, issued)
                items += answer_rows(len(items), outcomes, None if issued is None else [one.token for one in issued])
        except NoSuchUserError as error:
            raise account_gone() from error
        except ExpiredKeyError as error:
            raise unauthorized("The API key has expired.", code="expired") from error
        return items

    def _issue(self, claims: Verified, imported: list[Imported]) -> list[IssuedToken]:
        key = None if claims.key is None else IssuingKey(claims.key, claims.exp)
        return [self._issuer.for_device(one.device, key) for one in imported]
