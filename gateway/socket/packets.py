"""Socket.IO packets with undecoded payloads: one typed decoder sees them first, on the fast path and the plain path.

`reading_event` parses the frames that carry readings and nothing else. python-socketio uses `DevicePacket` for all
others: every event, whatever its name, is decoded to `[EVENT, Event]`, so clients cannot reach a handler by naming it
(`connect` and `disconnect` among them), and an event that cannot be decoded still gets its acknowledgement.
"""

import re
from typing import Any

import msgspec
from msgspec import Raw
from socketio.packet import EVENT as EVENT_PACKET
from socketio.packet import Packet

EVENT = "event"

# Type (connect, disconnect, event, binary event), attachments, namespace, acknowledgement id, data. An id is parsed
# whole or not at all: an acknowledgement under a part of it would be another event's.
_PACKET = re.compile(r"([0125])(?:(\d{1,10})-)?+(?:(/[^,]*),)?+(\d{0,18}+)(?!\d)(.*)", re.ASCII | re.DOTALL)
# Engine.IO's message, Socket.IO's event, the acknowledgement id, and the start of an array of a name and more.
_READING = re.compile(rb'42((?:0|[1-9]\d{0,17})?)\["reading(s?)",')
_TYPE_BYTES = 2
_ARRAY_END = ord("]")

_items = msgspec.json.Decoder(list[Raw])
_name = msgspec.json.Decoder(str)


class Event(msgspec.Struct, frozen=True, gc=False):
    """An event as it arrived: its name (None when it has none that can be read) and its undecoded arguments.

    With `frame`, the frame that the event came in, `arguments` is optimistic: everything after the name, as one
    payload. If that does not decode, use `reparsed`.
    """

    name: str | None
    arguments: tuple[bytes, ...] = ()
    size: int = 0
    frame: bytes | None = None

    def reparsed(self) -> "Event | None":
        """Return the event parsed in full; None when it was already."""
        return None if self.frame is None else parse_event(self.frame[self.frame.index(b"[") :])


def reading_event(frame: bytes) -> tuple[bytes, Event] | None:
    """Return the acknowledgement id (empty: none requested) and the event of a frame with readings; None for others."""
    found = _READING.match(frame)
    if found is None or frame[-1] != _ARRAY_END or not (frame.isascii() or _is_utf8(frame)):
        return None
    number, many = found.groups()
    size = len(frame) - len(number) - _TYPE_BYTES
    # The array is valid JSON exactly when the payload is one JSON value.
    return number, Event("readings" if many else "reading", (frame[found.end() : -1],), size, frame)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def parse_event(array: bytes) -> Event:
    """Parse an event's array without decoding its items."""
    try:
        items = _items.decode(array)
        return Event(_name.decode(items[0]), tuple(map(bytes, items[1:])), len(array))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, IndexError):
        return Event(None, (), len(array))


class _Json:
    """Implements `loads` and `dumps` as python-socketio calls them."""

    @staticmethod
    def loads(text: str, **_: Any) -> Any:
        """Decode the object of a CONNECT."""
        try:
            return msgspec.json.decode(text)
        except (msgspec.MsgspecError, RecursionError) as error:
            # both libraries expect the exception of the standard library
            raise ValueError(str(error)) from error

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        """Encode a packet's data."""
        return msgspec.json.encode(value).decode()


class DevicePacket(Packet):  # type: ignore[misc]  # python-socketio carries no types
    """A Socket.IO packet of this protocol. A class of its own: `json=` would change every packet of the process.

    Every packet of an event type is decoded to an event, so that it is acknowledged: also one that is not an array, and
    one that announces binary attachments, which this protocol does not have and whose wait would swallow the packets
    that follow.
    """

    uses_binary_events = False
    json = _Json

    def decode(self, encoded_packet: str) -> int:
        """Decode a packet as it arrived; ValueError when devices of this protocol do not send its type."""
        found = _PACKET.fullmatch(encoded_packet)
        if found is None:
            raise ValueError("not a packet of this protocol")
        kind, attachments, namespace, number, data = found.groups()
        if kind in ("0", "1"):
            return int(super().decode(encoded_packet) or 0)
        self.packet_type = EVENT_PACKET
        self.namespace = namespace or "/"
        self.id = int(number) if number else None
        if kind == "2" and not attachments and data.startswith("["):
            self.data = [EVENT, parse_event(data.encode())]
        else:
            self.data = [EVENT, Event(None, (), len(data))]
        return 0
