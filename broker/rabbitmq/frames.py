"""Encodes a message as the AMQP 0-9-1 frames that publish it, as one bytes object for one write.

The method frame is the same for every message to an exchange, and the properties except the message's id are the same
for every ordinary message: both are encoded once. With aio-pika a confirmed publish costs 113 µs of client CPU (ten in
flight, 160 B), with this 37 µs (docs/decisions/0006).
"""

import asyncio
import struct
from functools import lru_cache

import pamqp.frame
from aiormq.abc import ChannelFrame
from pamqp import commands

from broker.message import Header, Message
from broker.topology import Exchange

_FRAME_HEAD = struct.Struct(">BHI")  # type, channel, size
_CONTENT_HEAD = struct.Struct(">HHQ")  # class, weight, size of the body
_HEADER_FRAME, _BODY_FRAME, _FRAME_END = 2, 3, b"\xce"
_BASIC = 60
# Bytes of a body frame in addition to its content.
_FRAME_OVERHEAD = 8
TRANSIENT, PERSISTENT = 1, 2


def publish_frames(
    message: Message, exchange: Exchange, channel: int, frame_max: int, *, delivery_mode: int, mandatory: bool
) -> bytes:
    """Return the frames of one publish on a channel number; each frame has at most `frame_max` bytes."""
    body = message.body
    identity = message.message_id.encode()[:255]
    properties = _properties(tuple(message.headers.items()), exchange.content_type, delivery_mode)
    content = b"%b%b%c%b" % (_CONTENT_HEAD.pack(_BASIC, 0, len(body)), properties, len(identity), identity)
    parts = [
        _method(exchange.name, exchange.routing_key, channel, mandatory),
        _FRAME_HEAD.pack(_HEADER_FRAME, channel, len(content)),
        content,
        _FRAME_END,
    ]
    max_body_bytes = frame_max - _FRAME_OVERHEAD
    for start in range(0, len(body), max_body_bytes):
        piece = body if len(body) <= max_body_bytes else body[start : start + max_body_bytes]
        parts += (_FRAME_HEAD.pack(_BODY_FRAME, channel, len(piece)), piece, _FRAME_END)
    return b"".join(parts)


def channel_frame(frames: bytes, drained: "asyncio.Future[None] | None") -> ChannelFrame:
    """Wrap frames for the driver's write queue; with `drained`, its writer waits until the socket has taken them."""
    return ChannelFrame(payload=frames, should_close=False, drain_future=drained)


@lru_cache(maxsize=64)
def _method(exchange: str, routing_key: str, channel: int, mandatory: bool) -> bytes:
    return pamqp.frame.marshal(
        commands.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory), channel
    )


@lru_cache(maxsize=64)
def _properties(headers: tuple[tuple[str, Header], ...], content_type: str, delivery_mode: int) -> bytes:
    """Encode the properties up to the message's id, which comes last: a length byte and the text."""
    properties = commands.Basic.Properties(
        content_type=content_type, headers=dict(headers), delivery_mode=delivery_mode, message_id="?"
    )
    return properties.marshal()[: -len(b"\x01?")]
