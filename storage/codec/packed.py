"""Arrays of numbers and lists of bytes as packed bytes, and back.

Decoding trusts nothing: each count and size is compared with a bound before anything is allocated for it. Every packed
array is unpacked again and compared before it is used: the readings that it came from are deleted afterwards.
"""

import zlib
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, standalone

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Numbers = TypeVar("Numbers", Integers, Floats)

# More readings than this are not in one block: 0.5 MiB a column when unpacked.
MAX_READINGS = 65_536
# The sum of a list's items before compression. A document of MongoDB has at most 16 MiB.
MAX_LIST_BYTES = 8 * 1024 * 1024

# The first byte of a packed array says how the rest is encoded.
_RAW_CODE, _CONSTANT_CODE, _RUNS_CODE, _PCODEC_CODE = b"\x00", b"\x01", b"\x02", b"\x03"
_STORED_CODE, _DEFLATED_CODE = b"\x00", b"\x01"
# Runs of the same number are packed as runs if they are at least this long on average.
_RUN_LENGTH = 16
# Shorter lists hardly become shorter.
_DEFLATE_BYTES = 64
# Of pcodec's levels, 8 by default: 2 % larger at half of the time.
_LEVEL = 4
_CONFIG = {
    "steps": ChunkConfig(compression_level=_LEVEL, delta_spec=DeltaSpec.try_consecutive(1)),
    "steps_of_integers": ChunkConfig(
        compression_level=_LEVEL, mode_spec=ModeSpec.classic(), delta_spec=DeltaSpec.try_consecutive(1)
    ),
    "any": ChunkConfig(compression_level=_LEVEL),
}
Config = Literal["steps", "steps_of_integers", "any"]
# The numbers of a block are little-endian, as those of BSON.
_INT64: np.dtype[np.int64] = np.dtype("<i8")
_FLOAT64: np.dtype[np.float64] = np.dtype("<f8")
_ZERO = np.zeros(1, _INT64)


class BlockError(Exception):
    """The bytes are not a block that this version can read."""


class BlockTooLarge(Exception):
    """The readings do not fit one block; half of them may."""


class Input:
    """Bytes that are read from front to back; BlockError when they end early."""

    __slots__ = ("_at", "_bytes", "left")

    def __init__(self, data: bytes) -> None:
        self._bytes = data
        self._at = 0
        self.left = len(data)
        """The number of bytes not read yet."""

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        if not 0 <= size <= self.left:
            raise BlockError(f"{size} bytes are needed and {self.left} are left")
        at = self._at
        self._at = end = at + size
        self.left -= size
        return self._bytes[at:end]

    def uint(self, limit: int) -> int:
        """Return the next number, in base 128 with the lowest digits first, at most `limit`."""
        byte = self._byte()
        number, shift = byte & 0x7F, 7
        while byte >= 0x80:
            if shift > 63:
                raise BlockError("a number has more than 64 bits")
            byte = self._byte()
            number |= (byte & 0x7F) << shift
            shift += 7
        if number > limit:
            raise BlockError(f"{number} is above its bound, {limit}")
        return number

    def end(self) -> None:
        """Raise BlockError unless everything has been read."""
        if self.left:
            raise BlockError(f"{self.left} bytes are left over")

    def _byte(self) -> int:
        if not self.left:
            raise BlockError("1 byte is needed and 0 are left")
        at = self._at
        self._at = at + 1
        self.left -= 1
        return self._bytes[at]


def uint(number: int) -> bytes:
    """Return a number from 0 in base 128, lowest digits first; each byte but the last has its high bit set."""
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _zigzag(number: int) -> int:
    """Return 0, 1, 2, 3 for 0, -1, 1, -2, so that small numbers of both signs are short."""
    return number << 1 if number >= 0 else (-number << 1) - 1


def sized(data: bytes) -> bytes:
    """Return bytes after their length."""
    return uint(len(data)) + data


def pack(numbers: Numbers, config: Config = "any") -> bytes:
    """Return an array of at least one int64 or float64 as bytes; floats keep their bits, -0.0 and NaN included."""
    bits = numbers.view(_INT64)
    changes = bits[1:] != bits[:-1]
    runs = 1 + int(np.count_nonzero(changes))
    if runs == 1:
        return _CONSTANT_CODE + uint(_zigzag(int(bits[0])))
    if runs * _RUN_LENGTH <= len(bits):
        starts = np.concatenate((_ZERO, np.flatnonzero(changes) + 1))
        lengths = np.diff(starts, append=len(bits))
        return _RUNS_CODE + uint(runs) + sized(_pack_each(lengths, "any")) + _pack_each(numbers[starts], config)
    return _pack_each(numbers, config)


def _pack_each(numbers: Numbers, config: Config) -> bytes:
    raw = numbers.tobytes()
    if len(numbers) > 2:
        packed: bytes = standalone.simple_compress(numbers, _CONFIG[config])
        if len(packed) < len(raw):
            unpacked = np.empty_like(numbers)
            try:
                _unpack_pcodec(packed, unpacked)
            except BlockError:
                return _RAW_CODE + raw
            if unpacked.tobytes() == raw:
                return _PCODEC_CODE + packed
    return _RAW_CODE + raw


def unpack_integers(data: bytes, count: int) -> Integers:
    """Return `count` integers, at most MAX_READINGS, from what `pack` made of them; BlockError for other bytes."""
    return _unpack(data, np.empty(count, _INT64))


def unpack_floats(data: bytes, count: int) -> Floats:
    """Return `count` floats, at most MAX_READINGS, from what `pack` made of them; BlockError for other bytes."""
    return _unpack(data, np.empty(count, _FLOAT64))


def _unpack(data: bytes, into: Numbers) -> Numbers:
    code, packed = data[:1], data[1:]
    if code == _PCODEC_CODE:
        _unpack_pcodec(packed, into)
    elif code == _CONSTANT_CODE:
        _unpack_constant(Input(packed), into)
    elif code == _RUNS_CODE:
        _unpack_runs(Input(packed), into)
    elif code == _RAW_CODE:
        _unpack_raw(packed, into)
    else:
        raise BlockError(f"an array is packed in an unknown way, {code!r}")
    return into


def _unpack_raw(data: bytes, into: Numbers) -> None:
    if len(data) != into.nbytes:
        raise BlockError(f"{len(data)} bytes are not {len(into)} numbers")
    into[:] = np.frombuffer(data, into.dtype)


def _unpack_constant(data: Input, into: Numbers) -> None:
    number = data.uint(2**64 - 1)
    data.end()
    into.view(_INT64)[:] = number >> 1 ^ -(number & 1)


def _unpack_runs(data: Input, into: Numbers) -> None:
    runs = data.uint(len(into))
    lengths_packed, numbers_packed = data.take(data.uint(data.left)), data.take(data.left)
    if _RUNS_CODE in (lengths_packed[:1], numbers_packed[:1]):
        raise BlockError("there are runs of runs")
    lengths = unpack_integers(lengths_packed, runs)
    if not runs or lengths.min() < 1 or int(lengths.astype(np.float64).sum()) != len(into):
        raise BlockError(f"the runs do not add up to {len(into)} numbers")
    into[:] = np.repeat(_unpack(numbers_packed, np.empty(runs, into.dtype)), lengths)


def _unpack_pcodec(data: bytes, into: Numbers) -> None:
    """Fill an array. It has its size already, so that what the bytes say of theirs allocates nothing."""
    try:
        progress: Any = standalone.simple_decompress_into(data, into)
    except BaseException as error:
        # A panic of the Rust code is derived from BaseException alone, and has no importable name.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise BlockError(f"an array does not unpack: {error}") from error
    if progress.n_processed != len(into) or not progress.finished:
        raise BlockError(f"an array has other than {len(into)} numbers")


def pack_list(items: list[bytes]) -> bytes:
    """Return a list of bytes, in order; BlockTooLarge above MAX_LIST_BYTES."""
    plain = b"".join((*map(uint, map(len, items)), *items))
    if len(plain) > MAX_LIST_BYTES:
        raise BlockTooLarge(f"{len(plain)} bytes of texts, attributes or documents")
    head = uint(len(items)) + uint(len(plain))
    if len(plain) >= _DEFLATE_BYTES and len(deflated := zlib.compress(plain)) < len(plain):
        return head + _DEFLATED_CODE + deflated
    return head + _STORED_CODE + plain


def unpack_list(data: bytes) -> list[bytes]:
    """Return at most MAX_READINGS items from what `pack_list` made of them; BlockError for other bytes."""
    packed = Input(data)
    count, size = packed.uint(MAX_READINGS), packed.uint(MAX_LIST_BYTES)
    code, rest = packed.take(1), packed.take(packed.left)
    if code == _DEFLATED_CODE:
        rest = _inflated(rest, size)
    elif code != _STORED_CODE:
        raise BlockError(f"a list is packed in an unknown way, {code!r}")
    plain = Input(rest)
    lengths = [plain.uint(size) for _ in range(count)]
    items = [plain.take(length) for length in lengths]
    plain.end()
    return items


def _inflated(data: bytes, size: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data, size + 1)
    except zlib.error as error:
        raise BlockError(f"a list does not inflate: {error}") from error
    if len(plain) != size or not stream.eof:
        raise BlockError(f"a list has other than {size} bytes")
    return plain
