"""Encodes the documents of one series by template: all bytes but `ts`, `seq`, `value` and `receivedAt` repeat.

`bson.encode` makes one document of the series; its bytes are split at those four fields, and `struct` fills them in.
The result is equal to that of `encode_document`, as a property test proves, in about a twentieth of its time.
"""

import struct
from collections.abc import Callable
from functools import lru_cache

import msgspec

from readings.document import encode_document
from readings.reading import Reading, Value

INT32 = range(-(2**31), 2**31)
SEQ = b"\x12seq\0"
RECEIVED = b"\x09receivedAt\0"

_LENGTH = struct.Struct("<i")
_TS_SEQ = struct.Struct("<q5sq")
_RECEIVED_AT = struct.Struct("<12sq")
# The offset of `_id`'s own length, and the distance of the bytes of `ts` from the end of `_id`: `seq` (1 + 4 + 8 bytes)
# and the closing zero follow them.
_ID_AT = 9
_TS_FROM_END = 8 + 13 + 1
# The bytes that close `_id` and start `value`, by the value's format in `struct`.
_VALUE = {
    "d": b"\0\x01value\0",
    "i": b"\0\x10value\0",
    "q": b"\0\x12value\0",
    "?": b"\0\x08value\0",
}
_TEXT = b"\0\x02value\0"
_FLOAT_BYTES = 8

# `pack, head, value_head`: `pack(head, ts_ms, SEQ, seq, value_head, value, RECEIVED, received_ms, tail)` is a document.
Pack = Callable[..., bytes]
Layout = tuple[Pack, bytes, bytes]


class Template:
    """The documents of one series whose readings have the same unit, location and tags.

    `of_float` and `of_int32` are public so that a loop can pack in place, as `Layout` says. `quotes` is the number of
    quotation marks in the JSON of such a reading with numbers as value and `ts`, and with a `seq`.
    """

    __slots__ = ("_after_length", "_length", "_of_bool", "_of_int64", "of_float", "of_int32", "quotes", "tail")

    def __init__(self, owner: str, device: str, example: Reading, quotes: int = 0) -> None:
        """Make the template of all readings that differ from `example` only in value, times and `seq`."""
        self.quotes = quotes
        blank = msgspec.structs.replace(example, value=0.0, ts_ms=0, seq=0, received_ms=0)
        document = encode_document(owner, device, blank)
        (id_length,) = _LENGTH.unpack_from(document, _ID_AT)
        ts_at = _ID_AT + id_length - _TS_FROM_END
        tail_at = ts_at + 8 + len(SEQ) + 8 + len(_VALUE["d"]) + _FLOAT_BYTES + len(RECEIVED) + 8
        self._length = len(document) - _FLOAT_BYTES
        self._after_length = document[4:ts_at]
        self.tail = document[tail_at:]
        self.of_float = self._layout("d")
        self.of_int32 = self._layout("i")
        self._of_int64 = self._layout("q")
        self._of_bool = self._layout("?")

    def document(self, value: Value, ts_ms: int, seq: int, received_ms: int) -> bytes:
        """Return the document of one checked reading of the series; times in milliseconds since 1970."""
        if isinstance(value, str):
            return self._text_document(value.encode(), ts_ms, seq, received_ms)
        if isinstance(value, float):
            pack, head, value_head = self.of_float
        elif isinstance(value, bool):
            pack, head, value_head = self._of_bool
        elif value in INT32:
            pack, head, value_head = self.of_int32
        else:
            pack, head, value_head = self._of_int64
        return pack(head, ts_ms, SEQ, seq, value_head, value, RECEIVED, received_ms, self.tail)

    def _layout(self, code: str) -> Layout:
        head = _LENGTH.pack(self._length + struct.calcsize("<" + code)) + self._after_length
        return _pack_of(len(head), code, len(self.tail)), head, _VALUE[code]

    def _text_document(self, text: bytes, ts_ms: int, seq: int, received_ms: int) -> bytes:
        parts = (
            _LENGTH.pack(self._length + 4 + len(text) + 1),
            self._after_length,
            _TS_SEQ.pack(ts_ms, SEQ, seq),
            _TEXT,
            _LENGTH.pack(len(text) + 1),
            text,
            b"\0",
            _RECEIVED_AT.pack(RECEIVED, received_ms),
            self.tail,
        )
        return b"".join(parts)


@lru_cache(maxsize=4096)
def _pack_of(head: int, code: str, tail: int) -> Pack:
    # Shared by series whose names have the same length.
    return struct.Struct(f"<{head}sq{len(SEQ)}sq{len(_VALUE[code])}s{code}{len(RECEIVED)}sq{tail}s").pack
