"""DEVICE → GATEWAY over plain HTTP: `POST /readings`, for devices that speak no Socket.IO. Same checks, same promise.

A request is one event of a session that lasts as long as the request: it ends in the same `Answerer` as a socket's.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from aiohttp import web

from broker.reading import Rejection
from gateway.admission import Admission, Refused
from gateway.answer import BUSY_RETRY_MS, Answer, Answerer
from gateway.metrics import GatewayMetrics
from gateway.packets import Event
from gateway.settings import GatewaySettings
from runtime.bodies import json_response, read_bytes
from runtime.calls import JSON, Call
from runtime.problems import Handler, Problem

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
_any = msgspec.json.Decoder()


class ReadingsTaken(msgspec.Struct):
    """How many readings will be stored, and why the others will not. `index` counts from 0, as they were sent."""

    accepted: int
    rejected: list[Rejection]


class ReadingsSent(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """A reading; or an array of 1 to 1,000."""

    value: bool | int | float | str
    sensor_type: str | None = None
    ts: int | str | None = None
    seq: int | None = None
    unit: str | None = None
    location: str | dict[str, float] | None = None
    tags: dict[str, str] | None = None


def readings_call(handler: Handler) -> Call:
    """Describe the call."""
    return Call(
        method="POST",
        path="/readings",
        handler=handler,
        tag="readings",
        summary="Send readings without a socket",
        description="One reading, an array of 1 to 1,000, or as many as lines of NDJSON. What is counted as accepted "
        "can no longer be lost. Readings that carry `ts` may be sent again without being stored twice.",
        body=ReadingsSent | list[ReadingsSent],
        body_types=(JSON, NDJSON),
        request_headers={"X-Device-Id": "the device, with a user's token; with a device's own it may be left out"},
        answers={202: ReadingsTaken},
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
        self._held_bytes = 0
        self._admission = admission
        self._answerer = answerer
        self._metrics = metrics

    @property
    def calls(self) -> list[Call]:
        """What is served."""
        return [readings_call(self._take)]

    async def _take(self, request: web.Request) -> web.Response:
        try:
            session = await self._admission.admit(request)
        except Refused as refused:
            self._metrics.connects.labels(refused.code).inc()
            raise _problem(_STATUS[refused.code], str(refused), refused.data()) from refused
        try:
            with self._holding(self._max_bytes if request.content_length is None else request.content_length):
                event = await self._event(request)
                return _response(await self._answerer.answered(session, event), event)
        finally:
            self._admission.leave(session)

    @contextmanager
    def _holding(self, size: int) -> Iterator[None]:
        size = min(size, self._max_bytes)
        if self._held_bytes + size > self._max_held_bytes:
            raise _problem(503, "Too much is waiting to be stored.", {"code": "busy", "retryAfterMs": BUSY_RETRY_MS})
        self._held_bytes += size
        try:
            yield
        finally:
            self._held_bytes -= size

    async def _event(self, request: web.Request) -> Event:
        """Read the body as the event that a socket would have sent; Problem 400, 408, 413 or 415."""
        kind = request.content_type
        if kind != JSON and kind not in _NDJSON_TYPES:
            raise Problem(415, f"The body must be {JSON} or {NDJSON}.")
        if (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
            raise Problem(415, "JSON is UTF-8; no other charset is taken.")
        body = await read_bytes(request, self._max_bytes)
        if kind != JSON:
            return Event("readings", (_array_of_lines(body),), len(body))
        _require_json(body)
        name = "readings" if body.lstrip(b" \t\r\n").startswith(b"[") else "reading"
        return Event(name, (body,), len(body))


def _require_json(body: bytes) -> None:
    """Raise Problem 400 for what is not JSON to its end: nothing of it can be taken."""
    try:
        _any.decode(body)
    except msgspec.ValidationError:  # a number beyond all ranges: its reading is told so
        return
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(400, f"The body is not JSON: {error}") from error
    except RecursionError as error:
        raise Problem(400, "The body is nested too deeply.") from error


def _array_of_lines(body: bytes) -> bytes:
    """Make one array of NDJSON. A line that is no JSON becomes null, which is no reading either: its index stays."""
    lines = [line for line in map(bytes.strip, body.split(b"\n")) if line]
    return b"[" + b",".join(line if _is_json(line) else b"null" for line in lines) + b"]"


def _is_json(line: bytes) -> bool:
    try:
        _any.decode(line)
    except msgspec.ValidationError:
        return True
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _response(answer: Answer, event: Event) -> web.Response:
    status, code = answer["status"], answer.get("code", "")
    if status in ("accepted", "partial"):
        return json_response(ReadingsTaken(answer["accepted"], answer.get("rejected", [])), 202)
    if status == "retry":
        detail = "Send the same again a little later."
        raise _problem(_STATUS[code], detail, {name: answer[name] for name in answer if name != "status"})
    if code in _STATUS:
        raise _problem(_STATUS[code], answer["detail"], {"code": code})
    if event.name == "reading":
        return json_response(ReadingsTaken(0, [Rejection(0, code, answer["detail"])]), 202)
    raise _problem(422, answer["detail"], {"code": code})


def _problem(status: int, detail: str, data: dict[str, Any]) -> Problem:
    extra = {name: value for name, value in data.items() if name != "code"}
    headers = {}
    if "retryAfterMs" in extra:
        headers["Retry-After"] = str(math.ceil(extra["retryAfterMs"] / 1000))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Problem(status, detail, code=data["code"], headers=headers, extra=extra)
