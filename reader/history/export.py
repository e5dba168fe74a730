"""READER → PEOPLE: a stretch of any length as NDJSON or CSV, streamed, in constant memory.

One that cannot be finished is cut off without the end that HTTP wants, so that nobody takes it for whole.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from urllib.parse import quote

from aiohttp import web

from reader.history.csv_lines import CSV_HEAD, Lines, csv_lines
from reader.history.from_mongodb import HistoryUnavailable, Range
from reader.metrics import ReaderMetrics
from reader.responses import Document, as_ndjson
from readings.csv_row import CSV_END
from runtime.http.operation import JSON
from runtime.logs import logger

log = logger("reader.history.export")

CSV = "text/csv"
NDJSON = "application/x-ndjson"
_FORMATS = {"json": JSON, "ndjson": NDJSON, "csv": CSV}
# What each may be called in `Accept`, the likeliest first: where a client leaves the choice to us, it is JSON.
_NAMES = {JSON: {JSON}, NDJSON: {NDJSON, "application/ndjson", "application/jsonl"}, CSV: {CSV}}

# How long a client may leave what was sent unread; one that pauses holds a place among the exports.
UNREAD_TIMEOUT_S = 60.0

Batches = AsyncGenerator[list[Document]]


@dataclass(frozen=True, slots=True)
class Form:
    """How an export is written: its media type, for whom, and whether a last line says that it is whole."""

    kind: str
    for_spreadsheet: bool = False
    end: bool = False

    def lines_of(self, stretch: Range) -> tuple[Lines, bytes]:
        """Return what writes the readings of a stretch, and what stands before them."""
        if self.kind == CSV:
            return csv_lines(stretch.device, stretch.sensor_type, for_spreadsheet=self.for_spreadsheet), CSV_HEAD
        return as_ndjson, b""

    def last_line(self, count: int) -> bytes:
        """Return what stands behind so many readings: nothing, unless it was asked for."""
        if not self.end:
            return b""
        return f"{CSV_END}{count}\r\n".encode() if self.kind == CSV else b'{"end":true,"count":%d}\n' % count


def wanted_format(request: web.Request, format_: str) -> str:
    """Return the media type of the answer: what `format` says, else what `Accept` likes best of ours, else JSON."""
    if format_:
        return _FORMATS[format_]
    weights: dict[str, float] = {}
    for item in ",".join(request.headers.getall("Accept", ())).split(","):
        kind, *parameters = (part.strip().lower() for part in item.split(";"))
        weights.setdefault(kind, _weight(parameters))
    best, best_rank = JSON, (0.0, 3, 0)  # what has no weight is not wanted
    for kind in _NAMES:
        rank = _rank(kind, weights)
        if rank > best_rank:
            best, best_rank = kind, rank
    return best


def _rank(kind: str, weights: dict[str, float]) -> tuple[float, int, int]:
    """Return how much a type is wanted: its weight by the closest range that holds it, how close, how early that is.

    RFC 9110, 12.5.1.
    """
    order = list(weights)
    for closeness, names in ((2, _NAMES[kind]), (1, {kind.partition("/")[0] + "/*"}), (0, {"*/*"})):
        found = [name for name in order if name in names]
        if found:
            return max((weights[name], closeness, -order.index(name)) for name in found)
    return 0.0, 0, 0


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


class Export:
    """Writes stretches of readings."""

    def __init__(self, metrics: ReaderMetrics) -> None:
        self._metrics = metrics

    async def answer(
        self, request: web.Request, form: Form, stretch: Range, batches: Batches, is_active: Callable[[], bool]
    ) -> web.StreamResponse:
        """Answer with everything that comes; HistoryUnavailable only while nothing has been sent.

        An export may outlive its token; once that no longer `is_active`, nothing more is handed out.
        """
        response = web.StreamResponse(headers=_headers(form.kind, stretch))
        if request.method == "HEAD":
            return response
        lines, ahead = form.lines_of(stretch)
        count = 0
        try:
            async for batch in batches:
                if response.prepared and not is_active():
                    log.info("An export was cut off: its token has ended.")
                    cut(request)
                    return response
                self._metrics.readings.labels("export").inc(len(batch))
                count += len(batch)
                ahead += lines(batch)
                batch.clear()  # while a slow client reads, only the bytes stay in memory
                await _write(request, response, ahead)
                ahead = b""
            # Only here is everything that was asked for on its way: one that is cut off never comes to its last line.
            await _write(request, response, ahead + form.last_line(count))
            await response.write_eof()
        except (HistoryUnavailable, TimeoutError) as error:
            if not response.prepared:
                raise
            if isinstance(error, HistoryUnavailable):
                self._metrics.failures.inc()
            log.warning("An export was cut off.", error=str(error) or "its reader does not read")
            cut(request)
        except ConnectionError:
            log.debug("The reader of an export has left.")
        return response


def cut(request: web.Request) -> None:
    """End the connection without the end that HTTP wants."""
    if request.transport is not None:
        request.transport.abort()


async def _write(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    if not response.prepared:
        await response.prepare(request)
    if data:
        async with asyncio.timeout(UNREAD_TIMEOUT_S):
            await response.write(data)


def _headers(kind: str, stretch: Range) -> dict[str, str]:
    name = quote(f"{stretch.device}_{stretch.sensor_type}.{'csv' if kind == CSV else 'ndjson'}", safe="")
    return {
        "Content-Type": f"{kind}; charset=utf-8" if kind == CSV else kind,
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
