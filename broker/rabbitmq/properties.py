"""Decodes what RabbitMQ delivers: a message's properties, and what it adds to them, as headers and a delivery count.

The properties of ordinary messages differ in nothing but the message's id, which is the last of them. What stands in
front of it is decoded once.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from broker.headers import (
    ACQUIRED_COUNT_HEADER,
    DEATH_COUNT_HEADER,
    DEATH_HEADER,
    DEATH_TIME_HEADER,
    DELIVERY_COUNT_HEADER,
)
from broker.interface import Delivery
from broker.message import Header, Headers, Message

# A message's id as this project writes it, with the byte of its length; and one in its place.
_ID_BYTES = 32
_ANY_ID = "0" * _ID_BYTES
_ANY_ID_BYTES = bytes((_ID_BYTES,)) + _ANY_ID.encode()
# The second byte of the flags where there is an id, and nothing of what would follow it.
_ENDS_WITH_ID = b"\x80"
# What a content header has in front of its properties: the class, the weight, the size of the body.
_BEFORE_PROPERTIES = b"\0\x3c" + bytes(10)


def decode_message(properties: bytes, body: bytes) -> tuple[Message, int]:
    """Return a message and how often it was delivered before; `properties` are encoded, from their flags on.

    If they cannot be decoded, it has no headers and no id, and whoever reads it refuses it. An error would end the
    connection, and the next one would begin with the same message.
    """
    try:
        return _decode_message(properties, body)
    # RabbitMQ passes on texts that are no UTF-8, any time and any depth; the driver has an error of its own for each.
    except Exception:  # noqa: BLE001
        return Message(body, {}, ""), 0


def _decode_message(properties: bytes, body: bytes) -> tuple[Message, int]:
    split = len(properties) - len(_ANY_ID_BYTES)
    if split > 0 and properties[split] == _ID_BYTES and (usual := _in_front_of_id(properties[:split])) is not None:
        headers, delivery_count = usual
        return Message(body, headers, str(properties[split + 1 :], "utf-8")), delivery_count
    decoded = _decode(properties)
    headers, delivery_count = _headers_of(decoded)
    return Message(body, headers, decoded.message_id or ""), delivery_count


def delivery_of(incoming: DeliveredMessage) -> Delivery:
    """Return the driver's message as a Delivery."""
    properties = incoming.header.properties
    headers, delivery_count = _headers_of(properties)
    message = Message(bytes(incoming.body), headers, properties.message_id or "")
    return Delivery(message, incoming.delivery_tag or 0, delivery_count)


@lru_cache(maxsize=64)
def _in_front_of_id(start: bytes) -> tuple[Headers, int] | None:
    """Return the headers and the delivery count of properties that start so and end with an id; None for others."""
    if start[1:2] != _ENDS_WITH_ID:
        return None
    try:
        decoded = _decode(start + _ANY_ID_BYTES)
    except Exception:  # noqa: BLE001 - the id is shorter, and `start` ends within a header or another text
        return None
    return _headers_of(decoded) if decoded.message_id == _ANY_ID else None  # else the id is longer or shorter


def _decode(properties: bytes) -> Basic.Properties:
    header = ContentHeader()
    header.unmarshal(_BEFORE_PROPERTIES + properties)
    return header.properties


def _headers_of(properties: Basic.Properties) -> tuple[Headers, int]:
    headers = plain_headers(properties.headers or {})
    delivery_count = headers.pop(DELIVERY_COUNT_HEADER, 0)
    headers.pop(ACQUIRED_COUNT_HEADER, None)
    return headers, delivery_count if isinstance(delivery_count, int) else 0  # a text is the publisher's


def plain_headers(found: Mapping[str, Any]) -> dict[str, Header]:
    """Return the headers that are texts and numbers, plus time and count of the first death in `x-death`."""
    headers: dict[str, Header] = {}
    for name, value in found.items():
        if isinstance(value, (str, int)):
            headers[name] = value
        elif isinstance(value, bytes):
            headers[name] = value.decode("utf-8", "replace")
    deaths = found.get(DEATH_HEADER)
    if isinstance(deaths, list) and deaths and isinstance(deaths[-1], dict):
        first = deaths[-1]  # the latest comes first
        if hasattr(first.get("time"), "isoformat"):
            headers[DEATH_TIME_HEADER] = first["time"].isoformat().replace("+00:00", "Z")
        if isinstance(first.get("count"), int):
            headers[DEATH_COUNT_HEADER] = first["count"]
    return headers
