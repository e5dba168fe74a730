"""A block: readings of one series in order, each once, as a head and columns, which are two documents in storage."""

from typing import NamedTuple

from readings.keys import Position
from storage.codec.columns import Columns
from storage.codec.decode import decode, decode_positions
from storage.codec.encode import encode
from storage.codec.head import Head, head_of
from storage.codec.packed import BlockError


class Block(NamedTuple):
    """A head, and the columns as `encode` returns them."""

    head: Head
    columns: bytes


def encode_block(columns: Columns, start: Position, until: Position) -> Block:
    """Return a block with these bounds, `until` not included; BlockTooLarge when half of the readings may fit.

    ValueError when there are no readings, or readings out of order or outside of the bounds.
    """
    return Block(head_of(columns, start, until), encode(columns))


def decode_block(block: Block) -> Columns:
    """Return the readings; BlockError when the columns are damaged, of a later version, or not those of the head."""
    return decode_columns(block.columns, block.head.series, block.head.sums.count)


def decode_columns(columns: bytes, series: bytes, count: int, *, positions_alone: bool = False) -> Columns:
    """Return the readings of a block with this series and count in its head; BlockError as `decode_block`.

    With `positions_alone` only their ts and seq count, as `decode_positions` returns them.
    """
    found = (decode_positions if positions_alone else decode)(columns, series)
    if len(found) != count:
        raise BlockError(f"the columns have {len(found)} readings, and the head counts {count}")
    return found
