"""The packets that python-socketio is given: payloads stay undecoded, so that one typed decoder sees them first.

Every event, whatever its name, comes out as `[EVENT, Event]`: clients cannot reach a handler by naming it (`connect`
and `disconnect` among them), and what cannot be decoded still gets its answer.
"""

from typing import Any

import msgspec
from msgspec import Raw
from socketio.packet import Packet

EVENT = "event"

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
    """A Socket.IO packet of this protocol. A class of its own: `json=` would change every packet of the process."""

    uses_binary_events = False
    json = _Json
