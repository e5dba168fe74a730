"""The part of CBOR (RFC 8949) that SenML packs consist of, decoded within bounds.

An array of maps with integers or texts as keys. Anything else may only be the value of a key that SenML does not know:
its syntax is checked, and it becomes `OTHER`. So there are no tags to run code for, no bignums, no shared values, and
nothing is allocated by an announced length: that has to fit into the bytes that are there. A key that occurs twice is
an error, as RFC 8949 (5.6) lets a strict decoder treat it. Texts and bytes of unknown length are refused, as SenML has
none.
"""

import struct
from collections.abc import Iterator
from decimal import Decimal
from itertools import repeat

MAX_DEPTH = 16
# Data items of one record, at any depth: a record with every label of SenML has some 35.
MAX_ITEMS = 100
# Of a decimal fraction (tag 4): beyond it no number is a 64-bit float.
MAX_EXPONENT = 400

_UINT, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_BREAK = 0xFF
_INDEFINITE = 31
_DECIMAL_FRACTION = 4
_SIZES = {24: 1, 25: 2, 26: 4, 27: 8}
_FLOATS = {25: struct.Struct(">e"), 26: struct.Struct(">f"), 27: struct.Struct(">d")}
_SIMPLE_VALUES = {20: False, 21: True, 22: None}


class Other:
    """The type of `OTHER`."""

    __slots__ = ()


OTHER = Other()
"""A data item of a kind that no SenML field has."""

Scalar = int | float | Decimal | str | bytes | bool | None | Other
Record = dict[int | str, Scalar]


class CborError(ValueError):
    """The bytes are not CBOR, or exceed the bounds of this decoder."""


class NotAnArrayError(CborError):
    """The bytes begin with an item that is not an array."""


def decode_maps(raw: bytes) -> Iterator[Record | Scalar]:
    """Yield the items of an array, maps decoded; CborError at the first byte that is not what it should be.

    The error may come after items were yielded. NotAnArrayError: the first item is another one.
    """
    reader = _Reader(raw)
    major, argument = reader.head()
    if major != _ARRAY:
        raise NotAnArrayError("the body must be an array of records")
    for _ in reader.each(argument):
        reader.items = 0
        yield reader.record()
    reader.end()


class _Reader:
    """Reads data items one after the other."""

    __slots__ = ("_raw", "at", "items")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.at = 0
        self.items = 0

    def end(self) -> None:
        """Raise CborError unless all has been read."""
        if self.at != len(self._raw):
            raise CborError(f"{len(self._raw) - self.at} bytes follow the array")

    def each(self, count: int | None) -> Iterator[None]:
        """Yield before each item of an array, or pair of a map; of unknown length (None) until its end is passed."""
        if count is not None:
            yield from repeat(None, count)
            return
        while self._byte() != _BREAK:
            yield
        self.at += 1

    def head(self) -> tuple[int, int | None]:
        """Read an item's major type and argument, which is None for an array or a map of unknown length.

        Of a simple value or a float the argument is the additional information; what follows it is not read.
        """
        self.items += 1
        if self.items > MAX_ITEMS:
            raise CborError(f"a record may have at most {MAX_ITEMS} data items")
        byte = self._byte()
        self.at += 1
        major, info = byte >> 5, byte & 31
        if major == _SIMPLE:
            return major, info
        if info < 24:
            argument = info
        elif info in _SIZES:
            argument = int.from_bytes(self._take(_SIZES[info]))
        elif info == _INDEFINITE and major in (_ARRAY, _MAP):
            return major, None
        else:
            raise CborError(f"byte {self.at - 1} ({byte:#04x}) begins no data item that is accepted")
        # Each item takes a byte at least.
        if major in (_ARRAY, _MAP) and argument > len(self._raw) - self.at:
            raise CborError(f"{argument} items are announced at byte {self.at}, more than there are bytes")
        return major, argument

    def record(self) -> Record | Scalar:
        """Read a map, or any other item."""
        start = self.at
        major, argument = self.head()
        if major != _MAP:
            self.at, self.items = start, 0
            return self._scalar(1)
        record: Record = {}
        for _ in self.each(argument):
            key = self._scalar(2)
            if type(key) is not int and type(key) is not str:
                raise CborError("a key of a record must be an integer or a text")
            if key in record:
                raise CborError(f"the key {str(key)[:64]!r} occurs twice in one record")
            record[key] = self._scalar(2)
        return record

    def _scalar(self, depth: int) -> Scalar:
        """Read an item of a kind that SenML uses; pass over any other one."""
        major, argument = self.head()
        if argument is None or major in (_ARRAY, _MAP):
            self._skip_items(major, argument, depth)
            return OTHER
        if major == _SIMPLE:
            return self._simple(argument)
        if major in (_UINT, _NEGATIVE):
            return argument if major == _UINT else -1 - argument
        if major == _BYTES:
            return self._take(argument)
        if major == _TEXT:
            return self._text(argument)
        return self._tagged(argument, depth)

    def _text(self, length: int) -> str:
        text = self._take(length)
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            raise CborError("a text is not UTF-8") from error

    def _simple(self, info: int) -> Scalar:
        if info in _FLOATS:
            form = _FLOATS[info]
            number: float = form.unpack(self._take(form.size))[0]
            return number
        if info in _SIMPLE_VALUES:
            return _SIMPLE_VALUES[info]
        if info == 24 and self._take(1)[0] < 32:
            raise CborError("a simple value is encoded in two bytes though it has one")
        if info > 24:
            raise CborError(f"byte {self.at - 1} begins no data item")
        return OTHER

    def _tagged(self, tag: int, depth: int) -> Scalar:
        if tag != _DECIMAL_FRACTION:
            self.skip(depth + 1)
            return OTHER
        if self.head() != (_ARRAY, 2):
            raise CborError("a decimal fraction must be an array of an exponent and a mantissa")
        exponent, mantissa = self._scalar(depth + 2), self._scalar(depth + 2)
        if type(exponent) is not int or type(mantissa) is not int or abs(exponent) > MAX_EXPONENT:
            return OTHER
        return Decimal(f"{mantissa}E{exponent}")

    def skip(self, depth: int = 0) -> None:
        """Read one item of any kind, which contains others down to `MAX_DEPTH`."""
        if depth > MAX_DEPTH:
            raise CborError("the data items are nested too deeply")
        self._scalar(depth)

    def _skip_items(self, major: int, count: int | None, depth: int) -> None:
        for _ in self.each(count):
            if major == _MAP:
                self.skip(depth + 1)
            self.skip(depth + 1)

    def _byte(self) -> int:
        if self.at >= len(self._raw):
            raise CborError("the bytes end within a data item")
        return self._raw[self.at]

    def _take(self, length: int) -> bytes:
        end = self.at + length
        if end > len(self._raw):
            raise CborError(f"{length} bytes are announced at byte {self.at}, more than there are")
        taken = self._raw[self.at : end]
        self.at = end
        return taken
