"""Reads the rows of an import: a JSON array of devices, or CSV with a line of names. `auth devices import` uses it too.

In: the bytes of a body or file. Out: for each row a device to register, or why it is none.
"""

import csv
import io
from typing import Any

import msgspec

from auth.device_import import DeviceRow, Refusal
from auth.http.bodies import BatchDevice
from readings.csv_row import read_location
from runtime.http.bodies import parse_json
from runtime.http.fields import convert_body
from runtime.http.operation import JSON
from runtime.http.problems import FieldError, Problem, bad_body

CSV = "text/csv"
MAX_ROWS = 10_000
MAX_BYTES = 4 * 1024 * 1024

_COLUMNS = ("name", "sensorType", "location")


def read_rows(raw: bytes, media_type: str) -> list[DeviceRow | Refusal]:
    """Return the rows of a JSON or CSV text, in order; may take 0.3 s.

    Raises Problem 400 or 422 for text that has no rows, 413 for more than MAX_ROWS.
    """
    return _json_rows(raw) if media_type == JSON else _csv_rows(raw)


def _json_rows(raw: bytes) -> list[DeviceRow | Refusal]:
    given = parse_json(raw)
    if not isinstance(given, list):
        raise bad_body("The body must be a JSON array.", status=422)
    if len(given) > MAX_ROWS:
        raise _too_many_rows()
    return [_row(item) for item in given]


def _csv_rows(raw: bytes) -> list[DeviceRow | Refusal]:
    try:
        lines = csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True)
        columns = _columns(next(lines, []))
        rows: list[DeviceRow | Refusal] = []
        for cells in lines:
            if not cells:  # an empty line
                continue
            if len(rows) == MAX_ROWS:
                raise _too_many_rows()
            if len(cells) != len(columns):
                rows.append(Refusal("invalid", f"This row has {len(cells)} cells, the first line {len(columns)}."))
                continue
            rows.append(_csv_row(dict(zip(columns, cells, strict=True))))
    except UnicodeDecodeError as error:
        raise bad_body("The body is not UTF-8.") from error
    except csv.Error as error:
        raise bad_body(f"The body is not CSV: {error}.") from error
    return rows


def _csv_row(cells: dict[str, Any]) -> DeviceRow | Refusal:
    """Return the row; a location in braces is a position, as JSON however it is written, or wrong, but no text."""
    text = cells["location"].strip()
    if not (text.startswith("{") and text.endswith("}")):
        return _row(cells | {"location": msgspec.to_builtins(read_location(cells["location"]))})
    try:
        return _row(cells | {"location": parse_json(text.encode())})
    except Problem:
        return Refusal("invalid", "location: This must be text, or the JSON of a position.")


def _columns(given: list[str]) -> list[str]:
    """Return the columns in their order; Problem 422 for one that is missing, unknown or given twice."""
    errors = [FieldError(name[:64], "unknown", "There is no such column.") for name in given if name not in _COLUMNS]
    errors += [FieldError(name, "missing", "This column is required.") for name in _COLUMNS if name not in given]
    errors += [
        FieldError(name, "repeated", "This column is there twice.") for name in _COLUMNS if given.count(name) > 1
    ]
    if errors:
        detail = f"The first line must name the columns {', '.join(_COLUMNS)}."
        raise Problem(422, detail, errors=tuple(errors[:20]))
    return given


def _row(given: Any) -> DeviceRow | Refusal:
    try:
        device = msgspec.convert(given, BatchDevice, str_keys=True)
    except msgspec.ValidationError:
        return _refusal(given)
    return DeviceRow(device.name, device.sensor_type, device.location)


def _refusal(given: Any) -> Refusal:
    try:
        convert_body(given, BatchDevice)
    except Problem as problem:
        wrong = [f"{error.field}: {error.message}" if error.field else error.message for error in problem.errors]
        return Refusal("invalid", " ".join(wrong))
    raise AssertionError("refused and accepted")


def _too_many_rows() -> Problem:
    return Problem(413, f"One request may have {MAX_ROWS} rows.", code="too_many_rows", extra={"limit": MAX_ROWS})
