"""DEVICE → GATEWAY over plain HTTP: `POST /readings`, for devices that speak no Socket.IO. Same checks, same promise.

A request is one event of a session that lasts as long as the request: it ends in the same `Answerer` as a socket's.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, Raw, UnsetType

from gateway.admission import Admission, Refused
from gateway.ingest import BUSY_RETRY_MS, Answer, Answerer
from gateway.metrics import GatewayMetrics
from gateway.problems import problem
from gateway.session import Session
from gateway.settings import GatewaySettings
from gateway.socket.packets import Event
from readings.exported import ExportedReadingEncoder
from readings.place import Place
from readings.reading import GENERATED_SEQ_START, ID_PATTERN, MAX_READINGS, MAX_TAGS, MAX_TEXT, MAX_UNIT, Rejection
from runtime.http.bodies import json_response, read_bytes
from runtime.http.fields import ONE_LINE, ONE_LINE_RULE
from runtime.http.operation import JSON, Operation
from runtime.http.problems import Handler, Problem
from runtime.http.wording import rule

NDJSON = "application/x-ndjson"
_NDJSON_TYPES = (NDJSON, "application/ndjson", "application/jsonl")

# What HTTP answers for the protocol's codes; what is wrong with one reading is told in a 202.
_STATUS = {
    "unauthorized": 401,
    "expired": 401,
    "revoked": 401,
    "forbidden": 403,
    "device_required": 422,
    "rate_limited": 429,
    "busy": 503,
    "unavailable": 503,
    "too_large": 413,
    "batch_size": 422,
}
_SPACE = b" \t\r\n"
# Goes through all of a text without making anything of it; UTF-8 it does not look at.
_raw = msgspec.json.Decoder(Raw)

_Id = Annotated[str, Meta(pattern=f"^{ID_PATTERN.pattern}$", extra=rule("1 to 64 of A-Z a-z 0-9 _ . : -"))]
_Text = Annotated[str, Meta(max_length=MAX_TEXT, pattern=ONE_LINE, extra=ONE_LINE_RULE)]


class ReadingsTaken(msgspec.Struct):
    """How many readings will be stored, and why the others will not. `index` counts from 0, as they were sent."""

    accepted: int
    rejected: list[Rejection]


class ReadingSent(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """One reading. `sensorType` and `location` default to those of a device's token, `ts` to the time of receipt.

    `value` is finite, as an integer of 64 bits. No text has control characters, and no name stands twice. `ts` is in
    milliseconds since 1970, or RFC 3339 with a zone and at most three decimals; not before 2000, at most 24 h ahead; a
    leap second (`23:59:60` at the end of a month in UTC) is stored as the second after it, `.000`. `seq`, only with
    `ts`, counts apart what one series measures within a millisecond; below 2^52, as the others are a gateway's.

    A reading may also be sent as `GET /readings` gives it out. `device` is then the sender's, or the reading is
    rejected (`forbidden`). `receivedAt`, a time as `ts`, says that it was taken before: its `seq` may be a gateway's,
    it takes no location from a token, and it needs its `ts`. It is not stored: when it was received is now.
    """

    # Only described, never decoded: a reading that breaks a rule is refused alone, by readings/reading.py.
    value: Annotated[bool | int | float | _Text, Meta(examples=[21.5])]
    sensor_type: Annotated[_Id, Meta(examples=["temperature"])] | UnsetType = UNSET
    ts: int | str | UnsetType = UNSET
    seq: Annotated[int, Meta(ge=0, lt=2 * GENERATED_SEQ_START)] | UnsetType = UNSET
    unit: Annotated[str, Meta(max_length=MAX_UNIT, pattern=ONE_LINE, extra=ONE_LINE_RULE)] | UnsetType = UNSET
    location: _Text | Place | UnsetType = UNSET
    tags: Annotated[dict[_Id, _Text], Meta(max_length=MAX_TAGS)] | UnsetType = UNSET
    device: _Id | UnsetType = UNSET
    received_at: int | str | UnsetType = UNSET


def readings_call(handler: Handler) -> Operation:
    """Describe the call."""
    return Operation(
        method="POST",
        path="/readings",
        handler=handler,
        tag="readings",
        summary="Send readings without a socket",
        # Not among the types of the body: openapi-python-client warns of each that it does not know.
        description="One reading, an array of 1 to 1,000, or as many as lines of NDJSON with "
        "`Content-Type: application/x-ndjson`. What is counted as accepted can no longer be lost. Readings that carry "
        "`ts` may be sent again without being stored twice; so may the lines of an export "
        "(`GET /readings?format=ndjson`), 1,000 at a time.",
        body=ReadingSent | Annotated[list[ReadingSent], Meta(min_length=1, max_length=MAX_READINGS)],
        request_headers={"X-Device-Id": "the device, with a user's token; with a device's own it may be left out"},
        responses={202: ReadingsTaken},
        problems=(403, 429),
        secured=True,
    )


class FromHttp:
    """Takes readings over HTTP."""

    def __init__(
        self, settings: GatewaySettings, admission: Admission, answerer: Answerer, metrics: GatewayMetrics
    ) -> None:
        self._max_bytes = settings.max_event_bytes
        # Bodies that are being read and those that wait for their confirm: as much as sockets may have waiting.
        self._max_held_bytes = settings.max_waiting_bytes
        self._max_device_bytes = settings.max_in_flight_bytes
        self._held_bytes = 0
        self._device_bytes: Counter[tuple[str, str]] = Counter()
        self._admission = admission
        self._answerer = answerer
        self._metrics = metrics

    @property
    def calls(self) -> list[Operation]:
        """What is served."""
        return [readings_call(self._take)]

    async def _take(self, request: web.Request) -> web.Response:
        try:
            session = await self._admission.admit(request)
        except Refused as refused:
            self._metrics.connects.labels(refused.code).inc()
            raise problem(_STATUS[refused.code], str(refused), refused.data()) from refused
        session.intake = ExportedReadingEncoder(session.owner, session.device, session.defaults, session.may_name)
        try:
            with self._holding(session, self._announced(request)):
                event = await self._event(request)
            self._require_in_force(session)
            with self._holding(session, event.size):  # no more than before, and nobody came between
                return _response(await self._answerer.answered(session, event), event)
        finally:
            self._admission.leave(session)

    def _announced(self, request: web.Request) -> int:
        """Return the most that the body may become: a packed one, or one of unknown length, as much as may be."""
        if request.content_length is None or "Content-Encoding" in request.headers:
            return self._max_bytes
        return min(request.content_length, self._max_bytes)

    @contextmanager
    def _holding(self, session: Session, size: int) -> Iterator[None]:
        device = session.owner, session.device
        if self._held_bytes + size > self._max_held_bytes or self._device_bytes[device] + size > max(
            size, self._max_device_bytes
        ):
            raise problem(503, "Too much is waiting to be stored.", {"code": "busy", "retryAfterMs": BUSY_RETRY_MS})
        self._held_bytes += size
        self._device_bytes[device] += size
        try:
            yield
        finally:
            self._held_bytes -= size
            self._device_bytes[device] -= size
            if not self._device_bytes[device]:
                del self._device_bytes[device]

    def _require_in_force(self, session: Session) -> None:
        """Raise Problem 401 for a token that ended while the body was read, which may take longer than it may last."""
        code = "revoked" if self._admission.revoked(session) else "expired" if session.expires_at <= time.time() else ""
        if code:
            raise problem(401, f"the token was {code} while the body was read", {"code": code})

    async def _event(self, request: web.Request) -> Event:
        """Read the body as the event that a socket would have sent; Problem 400, 408, 413, 415 or 422."""
        kind = request.content_type
        if kind != JSON and kind not in _NDJSON_TYPES:
            raise Problem(415, f"The body must be {JSON} or {NDJSON}.")
        if (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
            raise Problem(415, "JSON is UTF-8; no other charset is taken.")
        try:
            body = await read_bytes(request, self._max_bytes)
        except ConnectionError as error:  # nobody is left to be told; only no fault of ours
            raise Problem(400, "The body ended with its connection.") from error
        if kind != JSON:
            return Event("readings", (_array_of_lines(body),), len(body))
        _require_utf8(body)
        name = "readings" if body.lstrip(_SPACE).startswith(b"[") else "reading"
        return Event(name, (body,), len(body))


def _array_of_lines(body: bytes) -> bytes:
    """Make one array of NDJSON. A line that is no JSON becomes null, which is no reading either: its index stays."""
    lines = [line for line in (line.strip(_SPACE) for line in body.split(b"\n")) if line]
    if len(lines) > MAX_READINGS:  # a million of them would take a second
        raise problem(422, f"1 to {MAX_READINGS} readings are taken, {len(lines)} were sent", {"code": "batch_size"})
    return b"[" + b",".join(line if _is_json(line) else b"null" for line in lines) + b"]"


def _is_json(line: bytes) -> bool:
    try:
        _require_json(line)
    except Problem:
        return False
    return True


def _require_json(body: bytes) -> None:
    """Raise Problem 400 for what is not JSON to its end. Numbers beyond all ranges are: their readings are told so."""
    _require_utf8(body)
    try:
        _raw.decode(body)
    except msgspec.DecodeError as error:
        raise Problem(400, f"The body is not JSON: {error}") from error
    except RecursionError as error:
        raise Problem(400, "The body is nested too deeply.") from error


def _require_utf8(body: bytes) -> None:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise Problem(400, f"The body is not UTF-8: {error}") from error


def _response(answer: Answer, event: Event) -> web.Response:
    status, code = answer["status"], answer.get("code", "")
    if status in ("accepted", "partial"):
        return json_response(ReadingsTaken(answer["accepted"], answer.get("rejected", [])), 202)
    if status == "retry":
        detail = "Send the same again a little later."
        raise problem(_STATUS[code], detail, {name: answer[name] for name in answer if name != "status"})
    if code in _STATUS and code != "forbidden":  # which here is told of one reading
        raise problem(_STATUS[code], answer["detail"], {"code": code})
    (body,) = event.arguments
    _require_json(body)
    if not body.lstrip(_SPACE).startswith(b"{"):
        raise problem(422, "The body must be a reading, or an array of readings.", {"code": code})
    return json_response(ReadingsTaken(0, [Rejection(0, code, answer["detail"])]), 202)
