"""The sections of a block: what both encoder and decoder know of the format.

A block is: the version, one byte; the CRC-32 of what follows, four bytes; the number of readings; then sections, each
an id, a length and that many bytes. Numbers before sections are as `packed.uint` writes them; a section is what
`packed.pack` or `packed.pack_list` returned. Ids ascend, and a section that would be empty is left out. Every version
that was ever written can be read: tests/storage/codec/golden has blocks of each.
"""

import struct
from enum import IntEnum

import numpy as np

from storage.codec.columns import INT32, Bytes, Kind
from storage.codec.packed import Floats

VERSION = 1
# With its head and key well below the 16 MiB of a document in MongoDB.
MAX_BLOCK_BYTES = 12 * 1024 * 1024
# The version and the CRC.
START = struct.Struct("<BI")


class Section(IntEnum):
    """The ids. Columns of one kind of value have only the readings of that kind."""

    TS = 1
    SEQ = 2
    LAGS = 3
    """receivedAt - ts; 0 for a reading kept whole"""
    SEALS = 4
    KINDS = 5
    FLOATS = 6
    """with the int32s, if there is any float: clients write 21.0 as 21"""
    INTEGERS = 7
    """int64, and int32 unless FLOATS has them"""
    BOOLEANS = 8
    TEXTS = 9
    """indexes into TEXT_LIST"""
    TEXT_LIST = 10
    OTHERS = 11
    """the documents kept whole, in their order"""
    TAILS = 12
    """indexes into TAIL_LIST, of all readings but those kept whole"""
    TAIL_LIST = 13
    LATITUDES = 14
    """of the readings whose tail has a location taken out of it, as the next two"""
    LONGITUDES = 15
    ALTITUDES = 16


PLACES = (Section.LATITUDES, Section.LONGITUDES, Section.ALTITUDES)
# In KINDS: int32 for each number that has no fraction and fits, float for any other. JavaScript writes numbers so.
NUMBER = 0xFF


def kinds_without_fraction(floats: Floats) -> Bytes:
    """Return the kinds that these numbers have when those without a fraction are written as integers."""
    fits = (floats >= INT32.start) & (floats < INT32.stop)
    whole = np.where(fits, floats, 0.5).astype(np.int64)
    is_int32 = fits & (whole == floats) & ~((whole == 0) & np.signbit(floats))
    return np.where(is_int32, np.uint8(Kind.INT32), np.uint8(Kind.FLOAT))
