"""Readings as lines of JSON (NDJSON), as `reading_object` has them."""

from typing import Any

from reader.history.lines import LineForm, json_floats
from reader.responses import Document, encode_json, reading_object


def ndjson_form(device: str, sensor_type: str) -> LineForm:
    """Return the form of the lines of one series: an object each, and a line feed."""
    head = b'{"device":%b,"sensorType":%b,"ts":"' % (encode_json(device), encode_json(sensor_type))
    return LineForm(
        head,
        after_ts=b'","seq":',
        after_seq=b',"value":',
        after_value=b',"receivedAt":"',
        after_received=b'"',
        end=b"}\n",
        floats=json_floats,
        coordinates=json_floats,
        text=encode_json,
        attribute=_attribute,
        absent=b"",
        document=_line,
    )


def _attribute(name: str, attribute: Any) -> bytes:
    return b',"%b":%b' % (name.encode(), encode_json(attribute))


def _line(document: Document) -> bytes:
    return encode_json(reading_object(document)) + b"\n"
