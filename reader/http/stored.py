"""READER → DEVICES: `POST /readings/stored`: which of some readings are stored, for devices whose receipts got lost."""

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from access.bearer import RepeatedHeaderError, header_once
from access.claims import Verified
from reader.history.from_mongodb import FromMongoDB
from reader.http.request_guard import RequestGuard
from reader.metrics import ReaderMetrics
from reader.responses import json_response
from readings.http_schema import Id
from readings.reading import ID_PATTERN, MAX_READINGS
from runtime.http.bodies import read_json
from runtime.http.fields import Body
from runtime.http.operation import Operation
from runtime.http.problems import Problem, bad_body

# 1,000 readings of as many series, with the longest names, have 140 kB; proxy/nginx.conf has the same bound.
MAX_BODY_BYTES = 256 * 1024

# A reading without `ts` has a `seq` of up to 2⁵³−1, given by the gateway.
_Number = Annotated[int, Meta(ge=0, le=2**53 - 1, examples=[1_767_225_600_000])]
# Not a tuple: its schema has `items: false`, which openapi-python-client 0.29.1 does not parse.
_Position = Annotated[list[_Number], Meta(min_length=2, max_length=2, description="`[tsMs, seq]`")]


class StoredItem(Body):
    """Readings of one series of the device: `[tsMs, seq]` of each."""

    sensor_type: Id
    readings: Annotated[list[_Position], Meta(min_length=1, max_length=MAX_READINGS)]


class StoredQuestion(Body):
    """Readings of one device: at most 1,000 in all."""

    items: Annotated[list[StoredItem], Meta(min_length=1, max_length=MAX_READINGS)]


class StoredAnswer(msgspec.Struct):
    """The readings that are stored; an empty list if there are none."""

    items: list[StoredItem]


class StoredRoutes:
    """Which readings of a device are stored."""

    def __init__(self, guard: RequestGuard, history: FromMongoDB, metrics: ReaderMetrics) -> None:
        self._guard = guard
        self._history = history
        self._metrics = metrics

    def calls(self) -> list[Operation]:
        """Return the operations served."""
        return [
            Operation(
                method="POST",
                path="/readings/stored",
                handler=self._stored,
                tag="readings",
                summary="Ask which readings of a device are stored",
                description="For a device that connected with `receipts: true` and got no `stored` event for some "
                "readings. The response has the same form, with the readings that are stored: of at most "
                f"{MAX_READINGS:,} that are named by `[tsMs, seq]`. A device's own token is enough, with "
                "`readings:write`.",
                body=StoredQuestion,
                request_headers={
                    "X-Device-Id": "the device's id; required with a user's token, optional with a device's token"
                },
                responses={200: StoredAnswer},
                problems=(403, 429),
                secured=True,
            )
        ]

    async def _stored(self, request: web.Request) -> web.Response:
        claims = await self._guard.claims_of_device(request)
        device = _device(request, claims)
        question = await read_json(request, StoredQuestion, max_bytes=MAX_BODY_BYTES)
        if sum(len(item.readings) for item in question.items) > MAX_READINGS:
            detail = f"At most {MAX_READINGS:,} readings can be asked for at once."
            raise bad_body(detail, status=422, code="batch_size")
        wanted: dict[str, set[tuple[int, int]]] = {}
        for item in question.items:
            wanted.setdefault(item.sensor_type, set()).update((ts_ms, seq) for ts_ms, seq in item.readings)
        items = []
        async with self._guard.admitted(claims.owner, "stored"):
            for sensor_type, positions in wanted.items():
                if found := await self._history.stored(claims.owner, device, sensor_type, sorted(positions)):
                    items.append({"sensorType": sensor_type, "readings": found})
        self._metrics.readings.labels("stored").inc(sum(len(item["readings"]) for item in items))
        return json_response({"items": items})


def _device(request: web.Request, claims: Verified) -> str:
    """Return the device that a request is about; Problem 403 or 422."""
    try:
        named = header_once(request.headers, "X-Device-Id")
    except RepeatedHeaderError as error:
        raise Problem(422, f"{error}.", code="device_required") from error
    if claims.device is not None:
        if named not in (None, claims.device):
            raise Problem(403, "The token belongs to another device.", code="forbidden")
        return claims.device
    if not named or not ID_PATTERN.fullmatch(named):
        raise Problem(422, "A user's token needs the device's id in X-Device-Id.", code="device_required")
    return named
