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


def decode_block(block: Block, *, positions_alone: bool = False) -> Columns:
    """Return the readings, or only their ts and seq as `decode_positions` does.

    BlockError when the columns are damaged, of a later version, or not those of the head.
    """
    columns = (decode_positions if positions_alone else decode)(block.columns, block.head.series)
    if len(columns) != block.head.sums.count:
        raise BlockError(f"the columns have {len(columns)} readings, and the head counts {block.head.sums.count}")
    return columns
