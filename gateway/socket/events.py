"""Events as they arrive, with undecoded payloads: the typed decoder of readings is the first to look into them.

`reading_event` parses the frames that carry readings and nothing else; `parse_event` parses every other event.
"""

import re
from typing import Final

import msgspec
from msgspec import Raw

# Engine.IO's message, Socket.IO's event, the acknowledgement id, and the start of an array of a name and more.
_READING: Final = re.compile(rb'42((?:0|[1-9]\d{0,17})?)\["reading(s?)",')
_TYPE_BYTES: Final = 2
_ARRAY_END: Final = ord("]")

_items: Final = msgspec.json.Decoder(list[Raw])
_name: Final = msgspec.json.Decoder(str)


class Event:
    """An event as it arrived: its name (None when it has none that can be read) and its undecoded arguments.

    With `frame`, the frame that the event came in, `arguments` is optimistic: everything after the name, as one
    payload. If that does not decode, use `reparsed`.
    """

    __slots__ = ("arguments", "frame", "name", "size")

    def __init__(
        self, name: str | None, arguments: tuple[bytes, ...] = (), size: int = 0, frame: bytes | None = None
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.size = size
        self.frame = frame

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
