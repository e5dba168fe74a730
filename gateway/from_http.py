"""DEVICE → GATEWAY over plain HTTP: `POST /readings`, for devices without Socket.IO. Same checks, same guarantee.

A request is one event of a session that lasts as long as the request; the same `EventHandler` handles it. The session's
encoder is that of the body's type.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, Raw, UnsetType

from gateway.admission import Admission, AdmissionDenied
from gateway.body_types import LINE_PROTOCOL, OWN_TYPES, SENML_CBOR, SENML_JSON, LineProtocolQuery, encoder_of
from gateway.ingest import BUSY_RETRY_MS, Ack, EventHandler
from gateway.metrics import GatewayMetrics
from gateway.problems import problem
from gateway.session import Session
from gateway.settings import GatewaySettings
from gateway.socket.events import Event
from readings.encoder import ReadingEncoder
from readings.encodings.encoder import DecodingEncoder, Renamed
from readings.encodings.sent import BodyRefused
from readings.http_schema import ReadingSent
from readings.reading import MAX_READINGS, Rejection
from runtime.http.bodies import json_response, read_bytes
from runtime.http.operation import JSON, Operation
from runtime.http.problems import Handler, Problem, bad_body

# HTTP statuses of the protocol's codes; an error in a single reading is reported in a 202.
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
}
_SPACE = b" \t\r\n"
# Validates JSON without decoding it; it does not check UTF-8.
_raw = msgspec.json.Decoder(Raw)


class ReadingsTaken(msgspec.Struct):
    """The number of accepted readings, and the rejected ones. `index` counts from 0, in the order sent.

    `renamed`, in answers to SenML and line protocol, lists the accepted readings whose name a sensorType cannot be.
    """

    accepted: int
    rejected: list[Rejection]
    renamed: list[Renamed] | UnsetType = UNSET


def readings_call(handler: Handler) -> Operation:
    """Return the description of `POST /readings`."""
    return Operation(
        method="POST",
        path="/readings",
        handler=handler,
        tag="readings",
        summary="Send readings without a socket",
        # Only JSON is listed among the body's types: openapi-python-client warns of each type that it does not know.
        description="One reading, an array of 1 to 1,000, or as many as lines of NDJSON with "
        "`Content-Type: application/x-ndjson`. Readings counted as accepted can no longer be lost. Readings with `ts` "
        "may be sent again without being stored twice; so may the lines of an export "
        "(`GET /readings?format=ndjson`), 1,000 at a time.\n\n"
        f"Also a SenML pack (RFC 8428) with `Content-Type: {SENML_JSON}` or `{SENML_CBOR}`, or InfluxDB's line "
        f"protocol with `{LINE_PROTOCOL}` (or `text/plain` and `?format=influx`). Their readings are stored under "
        "the name (`bn` and `n`, or measurement.field) with `_` for each character that a sensorType cannot have; "
        "`renamed` in the answer lists them. Nanoseconds are kept: `ts` is the millisecond, `seq` the nanoseconds in "
        "it.",
        body=ReadingSent | Annotated[list[ReadingSent], Meta(min_length=1, max_length=MAX_READINGS)],
        query=LineProtocolQuery,
        request_headers={
            "X-Device-Id": "the device's id; required with a user's token, optional with a device's token"
        },
        responses={202: ReadingsTaken},
        problems=(403, 429),
        secured=True,
    )


class FromHttp:
    """Receives readings over HTTP."""

    def __init__(
        self, settings: GatewaySettings, admission: Admission, event_handler: EventHandler, metrics: GatewayMetrics
    ) -> None:
        self._max_bytes = settings.max_event_bytes
        # Bodies being read and bodies waiting for their confirm: as many bytes as sockets may have waiting.
        self._max_reserved_bytes = settings.max_waiting_bytes
        self._max_device_bytes = settings.max_in_flight_bytes
        self._reserved_bytes = 0
        self._device_bytes: Counter[tuple[str, str]] = Counter()
        self._admission = admission
        self._event_handler = event_handler
        self._metrics = metrics

    @property
    def calls(self) -> list[Operation]:
        """The operations that are served."""
        return [readings_call(self._post_readings)]

    async def _post_readings(self, request: web.Request) -> web.Response:
        try:
            session = await self._admission.admit(request)
        except AdmissionDenied as denied:
            self._metrics.connects.labels(denied.code).inc()
            raise problem(_STATUS[denied.code], str(denied), denied.data()) from denied
        try:
            session.encoder = encoder_of(request, session)
            with self._reserve(session, self._max_body_bytes(request)):
                event = await self._event(request)
            self._require_active(session)
            with self._reserve(session, event.size):  # never more than reserved above, and no await in between
                return _response(await self._event_handler.handle_async(session, event), event, session.encoder)
        finally:
            self._admission.release(session)

    def _max_body_bytes(self, request: web.Request) -> int:
        """Return a bound for the decoded body: Content-Length, or the maximum if compressed or of unknown length."""
        if request.content_length is None or "Content-Encoding" in request.headers:
            return self._max_bytes
        return min(request.content_length, self._max_bytes)

    @contextmanager
    def _reserve(self, session: Session, size: int) -> Iterator[None]:
        device = session.owner, session.device
        if self._reserved_bytes + size > self._max_reserved_bytes or self._device_bytes[device] + size > max(
            size, self._max_device_bytes
        ):
            raise problem(503, "Too much is waiting to be stored.", {"code": "busy", "retryAfterMs": BUSY_RETRY_MS})
        self._reserved_bytes += size
        self._device_bytes[device] += size
        try:
            yield
        finally:
            self._reserved_bytes -= size
            self._device_bytes[device] -= size
            if not self._device_bytes[device]:
                del self._device_bytes[device]

    def _require_active(self, session: Session) -> None:
        """Raise Problem 401 if the token expired or was revoked while the body was read, which may take minutes."""
        code = (
            "revoked" if self._admission.is_revoked(session) else "expired" if session.expires_at <= time.time() else ""
        )
        if code:
            raise problem(401, f"the token was {code} while the body was read", {"code": code})

    async def _event(self, request: web.Request) -> Event:
        """Read the body as the event that a socket would have sent; Problem 400, 408, 413, 415 or 422 when invalid."""
        if (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
            raise Problem(415, "Only UTF-8 is accepted, no other charset.")
        try:
            body = await read_bytes(request, self._max_bytes)
        except ConnectionError as error:  # no client is left to answer; but it is not an internal error
            raise Problem(400, "The body ended with its connection.") from error
        kind = request.content_type
        if kind == JSON:
            _require_utf8(body)
            name = "readings" if body.lstrip(_SPACE).startswith(b"[") else "reading"
            return Event(name, (body,), len(body))
        return Event("readings", (_array_of_lines(body) if kind in OWN_TYPES else body,), len(body))


def _array_of_lines(body: bytes) -> bytes:
    """Return NDJSON as one JSON array. A line that is not JSON becomes null, which is rejected under its index."""
    lines = [line for line in (line.strip(_SPACE) for line in body.split(b"\n")) if line]
    if len(lines) > MAX_READINGS:  # a million of them would take a second
        detail = f"1 to {MAX_READINGS} readings are accepted, {len(lines)} were sent"
        raise bad_body(detail, status=422, code="batch_size")
    return b"[" + b",".join(line if _is_json(line) else b"null" for line in lines) + b"]"


def _is_json(line: bytes) -> bool:
    try:
        _require_json(line)
    except Problem:
        return False
    return True


def _require_json(body: bytes) -> None:
    """Raise Problem 400 unless the body is JSON. Numbers out of range are valid here; their readings are rejected."""
    _require_utf8(body)
    try:
        _raw.decode(body)
    except msgspec.DecodeError as error:
        raise bad_body(f"The body is not JSON: {error}") from error
    except RecursionError as error:
        raise bad_body("The body is nested too deeply.") from error


def _require_utf8(body: bytes) -> None:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise bad_body(f"The body is not UTF-8: {error}") from error


def _response(ack: Ack, event: Event, encoder: ReadingEncoder) -> web.Response:
    status, code = ack["status"], ack.get("code", "")
    if status in ("accepted", "partial"):
        renamed = encoder.renamed if isinstance(encoder, DecodingEncoder) else []
        return json_response(ReadingsTaken(ack["accepted"], ack.get("rejected", []), renamed or UNSET), 202)
    if status == "retry":
        detail = "Send the same request again later."
        raise problem(_STATUS[code], detail, {name: ack[name] for name in ack if name != "status"})
    if isinstance(encoder, DecodingEncoder) and encoder.refused is not None:
        raise _refusal(encoder.refused)
    if code == "batch_size":
        raise bad_body(ack["detail"], status=422, code=code)
    if code in _STATUS and code != "forbidden":  # which here concerns a single reading
        raise problem(_STATUS[code], ack["detail"], {"code": code})
    (body,) = event.arguments
    _require_json(body)
    if not body.lstrip(_SPACE).startswith(b"{"):
        raise bad_body("The body must be a reading, or an array of readings.", status=422, code=code)
    return json_response(ReadingsTaken(0, [Rejection(0, code, ack["detail"])]), 202)


def _refusal(refused: BodyRefused) -> Problem:
    if refused.reason == "malformed":
        return bad_body(refused.detail)
    return bad_body(refused.detail, status=422, code=refused.reason)
