"""The formats of an export: which one a request gets, and how readings become its bytes."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar
from weakref import WeakSet

from aiohttp import web

from reader.history.csv_lines import CSV_HEADER, csv_form
from reader.history.lines import LineForm, differ
from reader.history.ndjson_lines import ndjson_form
from reader.history.parquet import ParquetRows
from reader.history.selection import SeriesRows
from readings.csv_row import CSV_END
from runtime.http.accept import preferred_media_type
from runtime.http.operation import JSON

CSV = "text/csv"
NDJSON = "application/x-ndjson"
PARQUET = "application/vnd.apache.parquet"
_FORMATS = {"json": JSON, "ndjson": NDJSON, "csv": CSV, "parquet": PARQUET}
FILE_EXTENSIONS = {NDJSON: "ndjson", CSV: "csv", PARQUET: "parquet"}
# Accepted media types, most likely first: a client without a preference gets JSON.
_NAMES = {
    JSON: {JSON},
    NDJSON: {NDJSON, "application/ndjson", "application/jsonl"},
    CSV: {CSV},
    PARQUET: {PARQUET, "application/x-parquet", "application/parquet"},
}

_NDJSON_END = b'{"end":true,"count":%d}\n'
# Of all Parquet exports together: the more there are, the smaller are the row groups of each.
ROW_GROUPS_BYTES = 64 * 1024 * 1024
_parquet_encoders: "WeakSet[ParquetEncoder]" = WeakSet()
# Of all exports: one core at most, and the memory that pyarrow needs to encode exists once.
_thread = ThreadPoolExecutor(1, thread_name_prefix="parquet")
Result = TypeVar("Result")


class Encoder(Protocol):
    """Encodes the readings of one export, in order; each method returns the bytes to send next, maybe none."""

    async def encode(self, rows: SeriesRows) -> bytes:
        """Encode readings of one series."""
        ...

    async def end(self, count: int) -> bytes:
        """Return what follows the last of `count` readings."""
        ...


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """The format of an export: its media type, whether for spreadsheets, and whether a last line confirms the end."""

    media_type: str
    for_spreadsheet: bool = False
    end: bool = False

    async def encoder(self) -> tuple[Encoder, bytes]:
        """Return an encoder for one export, and what precedes the first reading."""
        if self.media_type == PARQUET:
            rows = await _in_thread(ParquetRows)
            return ParquetEncoder(rows), rows.take()
        return LineEncoder(self), CSV_HEADER if self.media_type == CSV else b""


class LineEncoder:
    """CSV or NDJSON: each reading is a line."""

    def __init__(self, export_format: ExportFormat) -> None:
        self._format = export_format
        self._series: tuple[str, str] | None = None
        self._form: LineForm | None = None

    async def encode(self, rows: SeriesRows) -> bytes:
        """Return the lines of readings."""
        if self._form is None or rows[:2] != self._series:
            self._series = rows[:2]
            self._form = self._form_of(*self._series)
        parts = []
        for part in self._form.lines(rows.columns):
            parts.append(part)
            await asyncio.sleep(0)  # others have their turn after each slice
        return b"".join(parts)

    def _form_of(self, device: str, sensor_type: str) -> LineForm:
        if self._format.media_type == CSV:
            return csv_form(device, sensor_type, for_spreadsheet=self._format.for_spreadsheet)
        return ndjson_form(device, sensor_type)

    async def end(self, count: int) -> bytes:
        """Return the line that confirms `count` readings; empty unless requested."""
        if not self._format.end:
            return b""
        return f"{CSV_END}{count}\r\n".encode() if self._format.media_type == CSV else _NDJSON_END % count


class ParquetEncoder:
    """Parquet, a row group at a time. Whatever takes longer than a batch of CSV runs in a thread."""

    def __init__(self, rows: ParquetRows) -> None:
        self._rows = rows
        _parquet_encoders.add(self)

    async def encode(self, rows: SeriesRows) -> bytes:
        """Add readings; return the row group that they complete, if any."""
        append = partial(self._rows.append, *rows, max_bytes=ROW_GROUPS_BYTES // len(_parquet_encoders))
        if await _in_thread(append) if differ(rows.columns) else append():
            return await _in_thread(self._rows.take_row_group)
        return b""

    async def end(self, count: int) -> bytes:
        """Return the last row group and the footer, which has the number of rows."""
        return await _in_thread(self._rows.end)


async def _in_thread(function: Callable[[], Result]) -> Result:
    return await asyncio.get_running_loop().run_in_executor(_thread, function)


def negotiate_media_type(request: web.Request, format_: str | None) -> str:
    """Return the response's media type: by `format`, else the supported type `Accept` prefers, else JSON.

    JSON also for a `format` that does not exist, which `read_query` refuses.
    """
    if format_ is not None:
        return _FORMATS.get(format_, JSON)
    return preferred_media_type(request, _NAMES)
