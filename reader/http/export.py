"""READER → CLIENTS: a time range of any length as NDJSON or CSV, streamed in constant memory.

An export that cannot be finished is aborted without HTTP's final chunk, so that no client takes it for complete.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from urllib.parse import quote

from aiohttp import web

from reader.history.csv_lines import CSV_HEADER, Lines, csv_lines
from reader.history.from_mongodb import HistoryUnavailable, Range
from reader.metrics import ReaderMetrics
from reader.responses import Document, abort, encode_ndjson
from readings.csv_row import CSV_END
from runtime.http.operation import JSON
from runtime.logs import logger

log = logger("reader.export")

CSV = "text/csv"
NDJSON = "application/x-ndjson"
_FORMATS = {"json": JSON, "ndjson": NDJSON, "csv": CSV}
# Accepted media types, most likely first: a client without a preference gets JSON.
_NAMES = {JSON: {JSON}, NDJSON: {NDJSON, "application/ndjson", "application/jsonl"}, CSV: {CSV}}

# How long a client may stop reading; meanwhile it occupies an export slot.
UNREAD_TIMEOUT_S = 60.0

Batches = AsyncGenerator[list[Document]]


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """The format of an export: its media type, whether for spreadsheets, and whether a last line confirms the end."""

    media_type: str
    for_spreadsheet: bool = False
    end: bool = False

    def lines_of(self, range_: Range) -> tuple[Lines, bytes]:
        """Return the function that encodes readings of a range as lines, and the header line."""
        if self.media_type == CSV:
            return csv_lines(range_.device, range_.sensor_type, for_spreadsheet=self.for_spreadsheet), CSV_HEADER
        return encode_ndjson, b""

    def last_line(self, count: int) -> bytes:
        """Return the line that confirms `count` readings; empty unless requested."""
        if not self.end:
            return b""
        return f"{CSV_END}{count}\r\n".encode() if self.media_type == CSV else b'{"end":true,"count":%d}\n' % count


def negotiate_media_type(request: web.Request, format_: str) -> str:
    """Return the response's media type: by `format`, else the supported type `Accept` prefers, else JSON."""
    if format_:
        return _FORMATS[format_]
    weights: dict[str, float] = {}
    for item in ",".join(request.headers.getall("Accept", ())).split(","):
        media_type, *parameters = (part.strip().lower() for part in item.split(";"))
        weights.setdefault(media_type, _weight(parameters))
    best, best_rank = JSON, (0.0, 3, 0)  # weight 0: not acceptable
    for media_type in _NAMES:
        rank = _rank(media_type, weights)
        if rank > best_rank:
            best, best_rank = media_type, rank
    return best


def _rank(media_type: str, weights: dict[str, float]) -> tuple[float, int, int]:
    """Rank a type by the weight of the most specific media range that matches it, its specificity and its position.

    RFC 9110, 12.5.1.
    """
    order = list(weights)
    for specificity, names in ((2, _NAMES[media_type]), (1, {media_type.partition("/")[0] + "/*"}), (0, {"*/*"})):
        found = [name for name in order if name in names]
        if found:
            return max((weights[name], specificity, -order.index(name)) for name in found)
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
    """Streams ranges of readings."""

    def __init__(self, metrics: ReaderMetrics) -> None:
        self._metrics = metrics

    async def answer(
        self,
        request: web.Request,
        export_format: ExportFormat,
        range_: Range,
        batches: Batches,
        token_active: Callable[[], bool],
    ) -> web.StreamResponse:
        """Stream all batches; HistoryUnavailable is raised only while nothing has been sent.

        An export may outlive its token; once `token_active` returns False, nothing more is sent.
        """
        response = web.StreamResponse(headers=_headers(export_format.media_type, range_))
        if request.method == "HEAD":
            return response
        lines, data = export_format.lines_of(range_)
        count = 0
        try:
            async for batch in batches:
                if response.prepared and not token_active():
                    log.info("An export was aborted: its token expired or was revoked.")
                    abort(request)
                    return response
                self._metrics.readings.labels("export").inc(len(batch))
                count += len(batch)
                data += lines(batch)
                batch.clear()  # while a slow client reads, only the encoded bytes stay in memory
                await _write(request, response, data)
                data = b""
            # Everything has been sent by now; an aborted export never gets its last line.
            await _write(request, response, data + export_format.last_line(count))
            await response.write_eof()
        except (HistoryUnavailable, TimeoutError) as error:
            if not response.prepared:
                raise
            if isinstance(error, HistoryUnavailable):
                self._metrics.failures.inc()
            log.warning("An export was aborted.", error=str(error) or "the client does not read")
            abort(request)
        except ConnectionError:
            log.debug("The client of an export disconnected.")
        return response


async def _write(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    if not response.prepared:
        await response.prepare(request)
    if data:
        async with asyncio.timeout(UNREAD_TIMEOUT_S):
            await response.write(data)


def _headers(media_type: str, range_: Range) -> dict[str, str]:
    name = quote(f"{range_.device}_{range_.sensor_type}.{'csv' if media_type == CSV else 'ndjson'}", safe="")
    return {
        "Content-Type": f"{media_type}; charset=utf-8" if media_type == CSV else media_type,
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
