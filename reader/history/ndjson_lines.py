"""Readings as JSON, as `reading_object` has them: as lines (NDJSON), or as the items of a page."""

from collections.abc import Callable
from typing import Any

from reader.history.lines import LineForm, json_floats
from reader.responses import Document, encode_json, reading_object
from storage.codec.columns import Columns


def ndjson_form(device: str, sensor_type: str) -> LineForm:
    """Return the form of the lines of one series: an object each, and a line feed."""
    return _form(device, sensor_type, b"\n")


def json_items(device: str, sensor_type: str, columns: Columns) -> bytes:
    """Return readings of one series as a JSON array: a third of what an object of each takes."""
    return b"[%b]" % b"".join(_form(device, sensor_type, b",").lines(columns))[:-1]


def _form(device: str, sensor_type: str, separator: bytes) -> LineForm:
    head = b'{"device":%b,"sensorType":%b,"ts":"' % (encode_json(device), encode_json(sensor_type))
    return LineForm(
        head,
        after_ts=b'","seq":',
        after_seq=b',"value":',
        after_value=b',"receivedAt":"',
        after_received=b'"',
        end=b"}" + separator,
        floats=json_floats,
        coordinates=json_floats,
        text=encode_json,
        attribute=_attribute,
        absent=b"",
        document=_document(separator),
    )


def _attribute(name: str, attribute: Any) -> bytes:
    return b',"%b":%b' % (name.encode(), encode_json(attribute))


def _document(separator: bytes) -> Callable[[Document], bytes]:
    return lambda document: encode_json(reading_object(document)) + separator
