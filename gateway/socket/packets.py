"""Socket.IO packets as python-socketio parses them on the plain path, with undecoded payloads as on the fast path.

Every event, whatever its name, is decoded to `[EVENT, Event]`, so clients cannot reach a handler by naming it
(`connect` and `disconnect` among them), and an event that cannot be decoded still gets its acknowledgement.
"""

import re
from typing import Any

import msgspec
from socketio.packet import EVENT as EVENT_PACKET
from socketio.packet import Packet

from gateway.socket.events import Event, parse_event

EVENT = "event"

# Type (connect, disconnect, event, binary event), attachments, namespace, acknowledgement id, data. An id is parsed
# whole or not at all: an acknowledgement under a part of it would be another event's.
_PACKET = re.compile(r"([0125])(?:(\d{1,10})-)?+(?:(/[^,]*),)?+(\d{0,18}+)(?!\d)(.*)", re.ASCII | re.DOTALL)


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
