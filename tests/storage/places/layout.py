"""Readings of one series, laid out over all places at random, and a model of what a reader has to find."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import bson
from bson import Int64, ObjectId

from persister.collections import uuid_of
from readings.collections import READINGS
from readings.document import AS_MILLISECONDS, position_of
from readings.keys import Position, series_key
from storage.codec.block import encode_block
from storage.codec.columns import Columns, concatenate, first_wins
from storage.codec.head import HOUR_MS, Head, head_of
from storage.places.documents import StoredHead, columns_document, piece_document
from storage.places.names import BEGINNING, BLOCKS, COLUMNS, END, PIECES, UNSEALED, sealed_name
from storage.places.state import STATE
from storage.places.window import position_at
from tests.storage.codec.cases import DEVICE, OWNER, SENSOR_TYPE, START_MS, columns, document

SERIES = series_key(OWNER, DEVICE, SENSOR_TYPE)
VALUES: list[Any] = [1.5, -0.0, 20.25, 3, 2**40, True, False, "on", "off"]


@dataclass
class Layout:
    """What is in which place, and by device the copy of each reading that counts."""

    collections: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    copies: dict[str, dict[Position, tuple[int, bytes]]] = field(default_factory=dict)

    def readings(self, device: str = DEVICE) -> list[bytes]:
        """Return what a reader has to find of a device, in order."""
        copies = self.copies[device]
        return [copies[position][1] for position in sorted(copies)]

    async def store(self, database: Any) -> None:
        """Write it to an empty database."""
        for name, documents in self.collections.items():
            if documents:
                await database[name].insert_many(documents)
        # As a sealer leaves it. Readers of the same place go on with the state that they have read.
        birth = {"$set": {"sealing.hotUuid": await uuid_of(database, READINGS)}}
        await database[BLOCKS].update_one({"_id": STATE}, birth)

    def count(self, number: int, made: list[bytes]) -> None:
        """Count documents of DEVICE that are under this seal number."""
        copies = self.copies.setdefault(DEVICE, {})
        for each in made:
            position = position_of(bson.decode(each, AS_MILLISECONDS))
            if number < copies.get(position, (UNSEALED + 1, b""))[0]:
                copies[position] = number, each

    def add(self, other: "Layout", device: str) -> None:
        """Add what is laid out for DEVICE as another one's, whose name has the same length."""
        for name, documents in other.collections.items():
            named = [each | {"_id": each["_id"] | {"device": device}} for each in documents]
            self.collections.setdefault(name, []).extend(named)
        named_copies = other.copies[DEVICE].items()
        self.copies[device] = {at: (n, raw.replace(DEVICE.encode(), device.encode())) for at, (n, raw) in named_copies}


def random_layout(dice: random.Random, devices: Sequence[str] = (DEVICE,)) -> Layout:
    """Lay out up to some hundred readings of each device, with repeats and late ones, in the middle of several merges.

    A compactor takes one sealed collection after the other, and in each one series after the other.
    """
    seals = dice.randint(0, 4)
    progress = {number: dice.choice(["waiting", "in the middle", "compacted"]) for number in range(1, seals + 1)}
    layout = Layout()
    for device in devices:
        layout.add(_random_series(dice, progress), device)
    if seals or dice.random() < 0.5:
        names = [number for number, one in progress.items() if one != "compacted"]
        waiting = [{"number": Int64(number), "renamed": dice.random() < 0.5} for number in names]
        has_blocks = any(one != "waiting" for one in progress.values())
        state = {"_id": STATE, "highest": Int64(seals), "waiting": waiting, "blocks": has_blocks}
        layout.collections.setdefault(BLOCKS, []).append(state)
    return layout


def _random_series(dice: random.Random, progress: dict[int, str]) -> Layout:
    layout = Layout()
    moved: list[tuple[int, list[bytes]]] = []
    for number in [*progress, UNSEALED]:
        made = random_documents(dice, number if number != UNSEALED else len(progress) + 1)
        layout.count(number, made)
        here = "hot" if number == UNSEALED else progress[number]
        if here != "compacted":
            name = READINGS if number == UNSEALED else sealed_name(number)
            layout.collections[name] = [bson.decode(each, AS_MILLISECONDS) for each in made]
        if here == "compacted":
            moved.append((number, made))
        if here == "in the middle":
            moved.append((number, made[: dice.randint(1, len(made))]))
    _add_pieces_and_blocks(layout, moved, dice)
    return layout


def random_documents(dice: random.Random, seal: int) -> list[bytes]:
    """Return documents in order, each identity once; some of them are late, and some are of earlier seals, too."""
    step = dice.choice([1000, 20_000, 300_000])
    found = {}
    for at in range(dice.randint(1, 300)):
        late = dice.randint(1, 300 * seal) if dice.random() < 0.05 else 0
        ts = START_MS + (seal * 300 + at - late) * step
        found[ts, dice.randint(0, 1)] = dice.choice(VALUES[:3] if dice.random() < 0.8 else VALUES)
    return [document(value, *position, unit=f"u{seal}") for position, value in sorted(found.items())]


def _add_pieces_and_blocks(layout: Layout, moved: list[tuple[int, list[bytes]]], dice: random.Random) -> None:
    in_pieces, in_blocks = [], []
    for number, made in moved:
        part = columns(made, number)
        where = dice.choice(["piece", "block", "both"])
        if where != "block":
            in_pieces.append(part)
        if where != "piece":
            in_blocks.append(part)
    layout.collections[PIECES] = [
        piece_document(SERIES, dice.randint(0, 3), ObjectId(), part, newest_of(part)) for part in in_pieces
    ]
    if in_blocks:
        _add_blocks(layout, first_wins(concatenate(in_blocks)).columns, dice)


def _add_blocks(layout: Layout, readings: Columns, dice: random.Random) -> None:
    cuts = sorted({dice.randint(1, len(readings)) for _ in range(dice.randint(0, 5))} - {len(readings)})
    bounds = [BEGINNING, *(position_at(readings, at) for at in cuts), END]
    parts = list(zip([0, *cuts], [*cuts, len(readings)], bounds, bounds[1:], strict=False))
    for number, (begin, end, start, until) in enumerate(parts):
        add_block(layout, readings.take(slice(begin, end)), start, until, pending=number > 0 and dice.random() < 0.2)
    begin, end, start, until = dice.choice(parts)
    if end - begin > 1 and dice.random() < 0.3:  # a split that was not finished
        middle = dice.randint(begin + 1, end - 1)
        rest = readings.take(slice(middle, end - 1)) if end - 1 > middle else readings.take(slice(middle, end))
        add_block(layout, rest, position_at(readings, middle), until, pending=True)


def add_block(layout: Layout, part: Columns, start: Position, until: Position, *, pending: bool = False) -> None:
    """Add a block."""
    block = encode_block(part, start, until)
    number = ObjectId()
    stored = StoredHead(block.head, number, ObjectId(), int(part.seals[-1]), pending)
    layout.collections.setdefault(BLOCKS, []).append(stored.document())
    layout.collections.setdefault(COLUMNS, []).append(columns_document(SERIES, start, number, block.columns))


def newest_of(part: Columns) -> dict[str, Any]:
    """Return the newest reading as a head has it."""
    head: Head = head_of(part, BEGINNING, END)
    return head.last


def hours_of(readings: list[bytes]) -> int:
    """Return how many hours have readings."""
    return len({position_of(bson.decode(each, AS_MILLISECONDS))[0] // HOUR_MS for each in readings})
