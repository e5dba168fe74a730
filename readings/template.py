"""The documents of one series without encoding each anew: all but `ts`, `seq`, `value` and `receivedAt` repeats.

`bson.encode` makes one document of the series; its bytes are cut apart at those four, and `struct` fills them in. The
bytes are those of `encode_document`, held equal by a property test, at about a twentieth of its time.
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
# Where `_id`'s own length stands, and how far from the end of `_id` the bytes of `ts` are: behind them stand `seq`
# (1 + 4 + 8 bytes) and the closing zero.
_ID_AT = 9
_TS_FROM_END = 8 + 13 + 1
# What closes `_id` and starts `value`, by the value's BSON type and its format in `struct`.
_VALUE = {
    "d": b"\0\x01value\0",
    "i": b"\0\x10value\0",
    "q": b"\0\x12value\0",
    "?": b"\0\x08value\0",
}
_TEXT = b"\0\x02value\0"
_FLOAT_BYTES = 8

# `fill, head, value_head`: `fill(head, ts_ms, SEQ, seq, value_head, value, RECEIVED, received_ms, tail)` is a document.
Fill = Callable[..., bytes]
Form = tuple[Fill, bytes, bytes]


class Template:
    """The documents of one series whose readings have the same unit, location and tags.

    `of_float` and `of_int32` are open so that a loop may fill them in place, as `Form` says. `quotes` is how many
    quotation marks the JSON of such a reading has that gives a number as value and as `ts`, and a `seq`.
    """

    __slots__ = ("_after_length", "_length", "_of_bool", "_of_int64", "of_float", "of_int32", "quotes", "tail")

    def __init__(self, owner: str, device: str, like: Reading, quotes: int = 0) -> None:
        """Make the template of all readings that differ from `like` in value and times alone."""
        self.quotes = quotes
        blank = msgspec.structs.replace(like, value=0.0, ts_ms=0, seq=0, received_ms=0)
        document = encode_document(owner, device, blank)
        (id_length,) = _LENGTH.unpack_from(document, _ID_AT)
        ts_at = _ID_AT + id_length - _TS_FROM_END
        tail_at = ts_at + 8 + len(SEQ) + 8 + len(_VALUE["d"]) + _FLOAT_BYTES + len(RECEIVED) + 8
        self._length = len(document) - _FLOAT_BYTES
        self._after_length = document[4:ts_at]
        self.tail = document[tail_at:]
        self.of_float = self._form("d")
        self.of_int32 = self._form("i")
        self._of_int64 = self._form("q")
        self._of_bool = self._form("?")

    def document(self, value: Value, ts_ms: int, seq: int, received_ms: int) -> bytes:
        """Return the document of one checked reading of the series."""
        if isinstance(value, str):
            return self._text_document(value.encode(), ts_ms, seq, received_ms)
        if isinstance(value, float):
            fill, head, value_head = self.of_float
        elif isinstance(value, bool):
            fill, head, value_head = self._of_bool
        elif value in INT32:
            fill, head, value_head = self.of_int32
        else:
            fill, head, value_head = self._of_int64
        return fill(head, ts_ms, SEQ, seq, value_head, value, RECEIVED, received_ms, self.tail)

    def _form(self, code: str) -> Form:
        head = _LENGTH.pack(self._length + struct.calcsize("<" + code)) + self._after_length
        return _packer(len(head), code, len(self.tail)), head, _VALUE[code]

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
def _packer(head: int, code: str, tail: int) -> Fill:
    # Series whose names have the same length share one.
    return struct.Struct(f"<{head}sq{len(SEQ)}sq{len(_VALUE[code])}s{code}{len(RECEIVED)}sq{tail}s").pack
