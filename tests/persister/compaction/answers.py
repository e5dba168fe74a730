"""Readings of several series with values of any type, and every kind of answer compared with a model in memory."""

import random
import time
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import bson
import pytest
from bson import Decimal128, Int64
from bson.datetime_ms import DatetimeMS

from reader.history.bucket_sums import BucketSums
from readings.document import AS_MILLISECONDS, position_of
from readings.keys import Position, reading_key, series_key
from storage.codec.from_documents import columns_of
from storage.codec.head import HOUR_MS
from storage.codec.to_documents import documents_of
from storage.places.names import BEGINNING, END
from storage.places.newest import Newest
from storage.places.reading import Places
from storage.places.state import DAY_MS
from storage.places.window import Window

SENSOR_TYPE = "temperature"
Name = tuple[str, str]
USUAL: list[Any] = [20.25, 20.5, 21, 3, 21.75]
UNUSUAL: list[Any] = [-0.0, 5e-324, 1e15, Int64(5), 2**40, -(2**63), True, False, "on", "", "öffnet", 0.1]
WHOLE: list[Any] = [None, Decimal128("1.50"), [1, 2], b"\0", float("nan")]
RETENTION_DAYS = 2
# No reading is nearer than that to the limit of retention, which moves during a test.
GAP_MS = 600_000


class Sensors:
    """Makes readings: mostly in order, some late, some repeated; times jump, units, locations and tags change."""

    def __init__(self, dice: random.Random) -> None:
        self.names: list[Name] = [(f"owner-{owner}", f"device-{device}") for owner in range(2) for device in range(3)]
        self.limit_ms = int(time.time() * 1000) - RETENTION_DAYS * DAY_MS
        self._dice = dice
        self._next = {name: dice.randrange(100) for name in self.names}
        self._sent: list[tuple[Name, int, int]] = []

    def batch(self, most: int = 60) -> list[bytes]:
        """Return the next documents of all series."""
        dice, made = self._dice, []
        for name in self.names:
            step = dice.choice([1, 1, 20, 600])
            fields = self._attributes()
            for _ in range(dice.choice([0, 1, 5, 20, most])):
                self._next[name] += step
                sent = name, self._next[name], dice.choice([0, 0, 0, 1, 2**52])
                match dice.randrange(25):
                    case 0 | 1:
                        sent = name, dice.randrange(self._next[name]), 0
                    case 2 | 3 if self._sent:
                        sent = dice.choice(self._sent)
                    case 4 if dice.random() < 0.1:
                        self._next[name] = dice.randrange(20_000)
                    case 5:
                        fields = self._attributes()
                self._sent.append(sent)
                made.append(self._document(*sent, fields))
        return made

    def _document(self, name: Name, second: int, seq: int, fields: dict[str, Any]) -> bytes:
        dice = self._dice
        value = dice.choice(dice.choices([USUAL, UNUSUAL, WHOLE], [90, 9, 1])[0])
        # The first 8,000 s are before the limit of retention.
        ts = self.limit_ms + (second - 8000) * 1000 + (GAP_MS if second >= 8000 else -GAP_MS)
        key = reading_key(*name, SENSOR_TYPE, ts, seq)
        return bson.encode({"_id": key, "value": value, "receivedAt": DatetimeMS(ts + dice.randrange(90)), **fields})

    def _attributes(self) -> dict[str, Any]:
        dice = self._dice
        place: Any = dice.choice(["hall 1", {"lat": dice.uniform(-90, 90), "lon": 7.5}])
        fields = {"unit": "°C", "location": place, "tags": {"line": dice.choice("abc")}}
        return {name: field for name, field in fields.items() if dice.random() < 0.7}


def position(document: bytes) -> Position:
    """Return the position of a document."""
    return position_of(bson.decode(document, AS_MILLISECONDS))


class Answers:
    """Compares what readers find with the readings of a model."""

    def __init__(self, places: Places, dice: random.Random) -> None:
        self._places = places
        self._dice = dice
        self._newest = Newest(places)

    def forget(self) -> None:
        """Forget what is newest, and the state of a second ago, as after a minute."""
        self._places = Places(self._places._database.client, self._places._database.name)
        self._newest = Newest(self._places)

    async def check(self, name: Name, expected: list[bytes]) -> None:
        """Ask for pages, a stream, buckets and the newest reading of a series, whose readings these are in order."""
        window = self._window(name, expected)
        await self._check_pages(window, _within(window, expected))
        window = self._window(name, expected)
        await self._check_stream(window, _within(window, expected))
        window = replace(self._window(name, expected), descending=False)
        await self._check_buckets(window, _within(window, expected))
        owner, device = name
        found = await self._newest.of(owner, [(device, SENSOR_TYPE)])
        newest = [bson.encode(one) for one in found.values()]
        assert newest == expected[-1:], "the newest reading"

    def _window(self, name: Name, expected: list[bytes]) -> Window:
        dice, ends = self._dice, [BEGINNING, END]
        if expected and dice.random() < 0.7:
            ends = sorted(position(dice.choice(expected)) for _ in range(2))
        start, end = dice.choice([ends[0], BEGINNING]), dice.choice([ends[1], END])
        return Window(series_key(*name, SENSOR_TYPE), start, end, descending=dice.random() < 0.5)

    async def _check_pages(self, window: Window, expected: list[bytes]) -> None:
        found: list[bytes] = []
        limit, rest = self._dice.choice([7, 50, 1000]), window
        while page := await self._places.documents(rest, limit):
            found += page
            rest = rest.behind(position(page[-1]))
        assert found == expected, "pages"

    async def _check_stream(self, window: Window, expected: list[bytes]) -> None:
        limit = self._dice.choice([None, None, 30])
        found: list[bytes] = []
        async with aclosing(self._places.stream(window, limit)) as batches:
            async for batch in batches:
                found += documents_of(batch)
        assert found == expected[:limit], "an export"

    async def _check_buckets(self, window: Window, expected: list[bytes]) -> None:
        if not expected:
            return
        first, last = position(expected[0])[0], position(expected[-1])[0]
        width = self._dice.choice([HOUR_MS // 4, HOUR_MS, 24 * HOUR_MS])
        boundaries = [*range(first - first % width, last + 1, width), last - last % width + width]
        found, model = (BucketSums(boundaries, top=top) for top in [self._dice.random() < 0.3] * 2)
        await found.add_all(self._places, window)
        model.add_columns(columns_of(b"".join(expected), 1))
        for one, other in zip(found.parts(), model.parts(), strict=True):
            if "avg" in other:
                assert one.pop("avg") == pytest.approx(other.pop("avg"), rel=1e-12, abs=1e-9)
            assert one == other, "buckets"


def _within(window: Window, expected: list[bytes]) -> list[bytes]:
    found = [one for one in expected if window.start <= position(one) < window.end]
    return found[::-1] if window.descending else found
