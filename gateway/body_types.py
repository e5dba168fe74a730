"""The types of the body of `POST /readings`: JSON, NDJSON, SenML (RFC 8428) and InfluxDB's line protocol."""

from typing import Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from gateway.session import Session
from readings.encoder import ReadingEncoder
from readings.encodings import senml
from readings.encodings.encoder import DecodingEncoder
from readings.encodings.line_protocol import LineProtocol, Precision
from readings.encodings.sent import Decode
from readings.exported import ExportedReadingEncoder
from readings.reading import ID_PATTERN, MAX_TAGS
from runtime.http.fields import read_query
from runtime.http.operation import JSON
from runtime.http.problems import Problem
from runtime.http.wording import rule

NDJSON = "application/x-ndjson"
SENML_JSON = "application/senml+json"
SENML_CBOR = "application/senml+cbor"
LINE_PROTOCOL = "application/vnd.influx.line"
_TEXT = "text/plain"

# Types whose readings have the fields of this system, and decoders of those whose readings have not.
OWN_TYPES = frozenset((JSON, NDJSON, "application/ndjson", "application/jsonl"))
_DECODERS: dict[str, Decode] = {SENML_JSON: senml.decode_json, SENML_CBOR: senml.decode_cbor}

_ID = ID_PATTERN.pattern
SeriesTags = Annotated[
    str,
    Meta(
        pattern=rf"^{_ID}(?:,{_ID}){{0,{MAX_TAGS - 1}}}$",
        description="The tags whose values are part of the sensorType, between measurement and field, separated by "
        "commas. Only with line protocol.",
        extra=rule(f"1 to {MAX_TAGS} names of tags, separated by commas"),
    ),
]


class LineProtocolQuery(msgspec.Struct, rename="camel"):
    """Query of `POST /readings` with a body in line protocol. For other bodies it is ignored."""

    format: (
        Annotated[Literal["influx"], Meta(description="Says that a body of `text/plain` is line protocol.")] | UnsetType
    ) = UNSET
    precision: Annotated[
        Precision,
        Meta(
            description="The unit of the times of line protocol; `n`, `u`, `m` (minutes) and `h` are those of "
            "InfluxDB 1."
        ),
    ] = "ns"
    series_tags: SeriesTags | UnsetType = UNSET


def encoder_of(request: web.Request, session: Session) -> ReadingEncoder:
    """Return the encoder of a request's readings by its type; Problem 415 for other types, 422 for a wrong query."""
    kind = request.content_type
    owner, device, defaults, may_use = session.owner, session.device, session.defaults, session.claim_sensor_type
    if kind in OWN_TYPES:
        return ExportedReadingEncoder(owner, device, defaults, may_use)
    if (decode := _DECODERS.get(kind) or _line_protocol(request)) is not None:
        return DecodingEncoder(owner, device, defaults, may_use, decode)
    raise Problem(
        415,
        f"The body must be {JSON}, {NDJSON}, {SENML_JSON}, {SENML_CBOR}, {LINE_PROTOCOL}, or {_TEXT} with "
        "?format=influx.",
    )


def _line_protocol(request: web.Request) -> LineProtocol | None:
    kind = request.content_type
    if kind != LINE_PROTOCOL and not (kind == _TEXT and "format" in request.query):
        return None
    query = read_query(request, LineProtocolQuery)
    tags = () if query.series_tags is UNSET else query.series_tags.split(",")
    return LineProtocol(query.precision, tags)
