"""Constants of the product that are other ones here, so that a short run with few readings comes to everything."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from device import sender
from persister import to_receipts
from persister.compaction import batch, blocks, pieces, planner

# Blocks begin at 16 readings, not 4,096, and runs of pieces are merged from the third one on, not the eighth.
SCALED: list[tuple[ModuleType, dict[str, float]]] = [
    (planner, {"BLOCK_MIN": 16, "MAX_RUNS": 2, "SAMPLE_EVERY": 2}),
    (batch, {"BLOCK_MIN": 16, "SAMPLE_EVERY": 2}),
    (blocks, {"BLOCK_USUAL": 24, "BLOCK_MAX": 40}),
    (pieces, {"PIECE_MAX": 24}),
    # Several events at once, as many as may be in flight, also where a minute's readings wait.
    (sender, {"MAX_READINGS": 20}),
    # It would be a third of all callbacks.
    (to_receipts, {"BROADCAST_EVERY_S": 0.5}),
]


@contextmanager
def scaled_down() -> Iterator[None]:
    """Use these constants."""
    before = [(module, name, getattr(module, name)) for module, values in SCALED for name in values]
    try:
        for module, values in SCALED:
            for name, value in values.items():
                setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
