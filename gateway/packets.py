"""The packets that python-socketio is given: payloads stay undecoded, so that one typed decoder sees them first.

Every event, whatever its name, comes out as `[EVENT, Event]`: clients cannot reach a handler by naming it (`connect`
and `disconnect` among them), and what cannot be decoded still gets its answer.
"""

import re
from typing import Any

import msgspec
from msgspec import Raw
from socketio.packet import EVENT as EVENT_PACKET
from socketio.packet import Packet

EVENT = "event"

# Type (connect, disconnect, event, binary event), attachments, namespace, acknowledgement id, data.
_PACKET = re.compile(r"([0125])(?:(\d{1,10})-)?(?:(/[^,]*),)?(\d{0,18})(.*)", re.ASCII | re.DOTALL)

_items = msgspec.json.Decoder(list[Raw])
_name = msgspec.json.Decoder(str)


class Event(msgspec.Struct, frozen=True):
    """An event as it arrived: its name (None when it has none that can be read) and its undecoded arguments."""

    name: str | None
    arguments: tuple[Raw, ...] = ()
    size: int = 0


class _Json:
    """Implements `loads` and `dumps` as python-socketio calls them."""

    @staticmethod
    def loads(text: str, **_: Any) -> Any:
        """Decode a CONNECT's object; take an EVENT's array apart without decoding what is in it."""
        raw = text.encode()
        if not raw.startswith(b"["):
            try:
                return msgspec.json.decode(raw)
            except (msgspec.MsgspecError, RecursionError) as error:
                # both libraries expect what the standard library raises
                raise ValueError(str(error)) from error
        try:
            items = _items.decode(raw)
            return [EVENT, Event(_name.decode(items[0]), tuple(items[1:]), len(raw))]
        except (msgspec.MsgspecError, RecursionError, IndexError):
            return [EVENT, Event(None, (), len(raw))]

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        """Encode what the server sends."""
        return msgspec.json.encode(value).decode()


class DevicePacket(Packet):  # type: ignore[misc]  # python-socketio carries no types
    """A Socket.IO packet of this protocol. A class of its own: `json=` would change every packet of the process.

    Whatever claims to be an event comes out as one, so that it is answered: one that is no array, and one that
    announces binary attachments, which this protocol does not have and whose wait would swallow what follows.
    """

    uses_binary_events = False
    json = _Json

    def decode(self, encoded_packet: str) -> int:
        """Decode a packet as it arrived; ValueError when it is of no kind that a device sends."""
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
            self.data = _Json.loads(data)
        else:
            self.data = [EVENT, Event(None, (), len(data))]
        return 0
