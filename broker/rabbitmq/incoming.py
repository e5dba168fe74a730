"""NETWORK → DRIVER, and past it: takes the deliveries and confirms of some channels out of a connection's bytes.

The driver awaits each part of each frame, decodes it into objects, queues it twice and starts a task a message. What a
busy channel receives is messages, and the confirms of its own. Those go to the channel's `Receiver` as the network
brings them, in their order; every other frame, and every frame of another channel, goes to the driver.

A returned message is followed by its confirm. The driver understands returns, so from the first one on it gets the
confirms of that channel too. A consumer's cancellation is told to both: the driver has to answer it. Once the broker
has closed a channel, what it still sends there is void: RabbitMQ 4.3 delivers behind that.
"""

import struct
from dataclasses import dataclass, field
from typing import Protocol

_HEAD = struct.Struct(">BHI")  # type, channel, size
_METHOD, _CONTENT_HEADER, _BODY = 1, 2, 3
_HEARTBEAT = 8
_KINDS = (_METHOD, _CONTENT_HEADER, _BODY, _HEARTBEAT)
_FRAME_END = 0xCE
# A frame in addition to its payload: what is in front of it, and the byte behind it.
_OVERHEAD = _HEAD.size + 1
# The class and the number of a method.
_CANCEL, _RETURN, _DELIVER, _ACK, _NACK = (b"\0\x3c" + struct.pack(">H", method) for method in (30, 50, 60, 80, 120))
_CHANNEL_CLOSE = b"\0\x14\0\x28"
_TAG = struct.Struct(">Q")
_BODY_SIZE = struct.Struct(">Q")
# In a content header: its class and weight stand before the size of the body, the properties behind it.
_BODY_SIZE_AT, _PROPERTIES_AT = 4, 12
_MULTIPLE = 1
HEARTBEAT_FRAME = _HEAD.pack(_HEARTBEAT, 0, 0) + bytes((_FRAME_END,))


class Receiver(Protocol):
    """Takes what arrives on one channel."""

    def on_delivery(self, tag: int, properties: bytes, body: bytes) -> None:
        """Take a message; `properties` are encoded, from their flags on."""

    def on_confirm(self, tag: int, *, multiple: bool, accepted: bool) -> None:
        """Take the confirm of the message with this tag, or of all up to it."""

    def on_cancelled(self) -> None:
        """Learn that the broker has cancelled the consumer, before anything that it sends behind that."""


@dataclass(slots=True)
class _Incoming:
    """A message of which not everything has arrived: `missing` bytes of the body, None before its header."""

    tag: int
    properties: bytes = b""
    missing: int | None = None
    pieces: list[bytes] = field(default_factory=list)


class FrameSplitter:
    """Splits what one connection receives; `feed` it everything, from the first byte on."""

    def __init__(self) -> None:
        self._receivers: dict[int, Receiver] = {}
        # How many frames were not the driver's.
        self.taken = 0
        # By channel: the message whose content comes next on it.
        self._incoming: dict[int, _Incoming] = {}
        # The start of a frame whose end has not arrived, and how many bytes have to be there before it is looked at.
        self._rest: list[bytes] = []
        self._held = 0
        self._needed = _HEAD.size
        # The bytes are no frames of AMQP 0-9-1: the driver gets them all, and raises.
        self._broken = False

    def take_over(self, channel: int, receiver: Receiver) -> None:
        """Pass the deliveries and confirms of a channel to `receiver` from now on."""
        self._receivers[channel] = receiver

    def feed(self, data: bytes) -> bytes:
        """Take what has arrived; return what is for the driver."""
        if self._broken:
            return data
        self._rest.append(data)
        self._held += len(data)
        if self._held < self._needed:
            return b""
        if len(self._rest) > 1:
            data = b"".join(self._rest)
        return self._split(data)

    def _split(self, data: bytes) -> bytes:
        """Take whole frames, and keep the rest; return what is for the driver."""
        kept: list[bytes] = []
        # Frames from `others_at` to `at` are the driver's.
        others_at = at = 0
        length = len(data)
        self._needed = _HEAD.size
        while length - at >= _HEAD.size:
            kind, channel, size = _HEAD.unpack_from(data, at)
            end = at + size + _OVERHEAD
            if end > length and kind in _KINDS:
                self._needed = size + _OVERHEAD
                break
            if kind not in _KINDS or data[end - 1] != _FRAME_END:
                self._broken = True
                at = length
                break
            if channel in self._receivers and self._take(kind, channel, data, at + _HEAD.size, end - 1):
                self.taken += 1
                kept.append(data[others_at:at])
                others_at = end
            at = end
        kept.append(data[others_at:at])
        rest = data[at:]
        self._rest = [rest] if rest else []
        self._held = len(rest)
        return b"".join(kept)

    def _take(self, kind: int, channel: int, data: bytes, at: int, end: int) -> bool:
        """Take the frame with this payload; False if it is the driver's."""
        if kind == _METHOD:
            return self._take_method(channel, data[at : at + 4], data, at + 4)
        incoming = self._incoming.get(channel)
        if incoming is None:
            return False
        if kind == _CONTENT_HEADER:
            incoming.properties = data[at + _PROPERTIES_AT : end]
            (incoming.missing,) = _BODY_SIZE.unpack_from(data, at + _BODY_SIZE_AT)
        elif kind == _BODY and incoming.missing is not None:
            incoming.pieces.append(data[at:end])
            incoming.missing -= end - at
        if incoming.missing == 0:
            del self._incoming[channel]
            body = incoming.pieces[0] if len(incoming.pieces) == 1 else b"".join(incoming.pieces)
            self._receivers[channel].on_delivery(incoming.tag, incoming.properties, body)
        return True

    def _take_method(self, channel: int, method: bytes, data: bytes, at: int) -> bool:
        if method == _DELIVER:
            tag_at = at + 1 + data[at]  # behind the consumer's tag
            self._incoming[channel] = _Incoming(_TAG.unpack_from(data, tag_at)[0])
            return True
        if method in (_ACK, _NACK):
            (tag,) = _TAG.unpack_from(data, at)
            multiple = bool(data[at + _TAG.size] & _MULTIPLE)
            self._receivers[channel].on_confirm(tag, multiple=multiple, accepted=method == _ACK)
            return True
        if method == _CANCEL:
            self._receivers[channel].on_cancelled()
        elif method in (_RETURN, _CHANNEL_CLOSE):
            del self._receivers[channel]
        return False
