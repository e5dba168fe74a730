"""The collections beside `readings`, and the bounds of a series' blocks."""

from readings.keys import Position

SEALED_PREFIX = "readings.sealed."
# Heads of blocks, and the one document of `State`.
BLOCKS = "readings.blocks"
# The columns of blocks, each version of them a document.
COLUMNS = "readings.columns"
# Small blocks beside the others, which lie over any time.
PIECES = "readings.pieces"

# The seal number of readings that are not sealed yet: higher than any other.
UNSEALED = 2**62

_INT64_MAX = 2**63 - 1
# The blocks of a series cover all time: the first one begins here, the last one ends there.
BEGINNING: Position = (-(2**63), -(2**63))
END: Position = (_INT64_MAX, _INT64_MAX)


def sealed_name(number: int) -> str:
    """Return the name of the collection with this seal number."""
    return f"{SEALED_PREFIX}{number}"


def seal_number(name: str) -> int | None:
    """Return the seal number in a collection's name; None if it is no sealed collection."""
    number = name.removeprefix(SEALED_PREFIX)
    return int(number) if name != number and number.isascii() and number.isdecimal() else None
