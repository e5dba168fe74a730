"""READER → CLIENTS: readings of any number, as NDJSON, CSV or Parquet, streamed in constant memory.

An export that cannot be finished is aborted without HTTP's final chunk, so that no client takes it for complete.
"""

import asyncio
from collections.abc import Callable
from urllib.parse import quote

from aiohttp import web

from reader.history.from_mongodb import HistoryUnavailable
from reader.history.selection import Rows, Selection
from reader.http.export_format import CSV, FILE_EXTENSIONS, ExportFormat
from reader.metrics import ReaderMetrics
from reader.responses import abort
from runtime.logs import logger

log = logger("reader.export")

# How long a client may take to read one piece; meanwhile it occupies an export slot.
UNREAD_TIMEOUT_S = 60.0
# Pieces of this size are written one by one, so that the time allowed does not depend on the format: a batch of CSV has
# some 80 kB, a row group of Parquet 1 MB.
PIECE_BYTES = 64 * 1024


class Export:
    """Streams selections of readings."""

    def __init__(self, metrics: ReaderMetrics) -> None:
        self._metrics = metrics

    async def answer(
        self,
        request: web.Request,
        export_format: ExportFormat,
        selection: Selection,
        rows: Rows,
        token_active: Callable[[], bool],
    ) -> web.StreamResponse:
        """Stream all rows; HistoryUnavailable is raised only while nothing has been sent.

        An export may outlive its token; once `token_active` returns False, nothing more is sent.
        """
        response = web.StreamResponse(headers=_headers(export_format.media_type, selection))
        if request.method == "HEAD":
            return response
        encoder, data = await export_format.encoder()
        count = 0
        try:
            async for batch in rows:
                if response.prepared and not token_active():
                    log.info("An export was aborted: its token expired or was revoked.")
                    abort(request)
                    return response
                self._metrics.readings.labels("export").inc(len(batch.columns))
                count += len(batch.columns)
                data += await encoder.encode(batch)
                await _write(request, response, data)
                data = b""
            # Everything has been sent by now; an aborted export never gets its end.
            await _write(request, response, data + await encoder.end(count))
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
        except Exception:  # logged by `problem_middleware`, whose response must not follow within this one's body
            if response.prepared:
                abort(request)
            raise
        return response


async def _write(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    if not response.prepared:
        await response.prepare(request)
    for start in range(0, len(data), PIECE_BYTES):
        async with asyncio.timeout(UNREAD_TIMEOUT_S):
            await response.write(data[start : start + PIECE_BYTES])


def _headers(media_type: str, selection: Selection) -> dict[str, str]:
    # What all rows have in common names the file.
    names = [names[0] for names in (selection.devices, selection.sensor_types) if len(names) == 1]
    name = quote(f"{'_'.join(names) or 'readings'}.{FILE_EXTENSIONS[media_type]}", safe="")
    return {
        "Content-Type": f"{media_type}; charset=utf-8" if media_type == CSV else media_type,
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
