"""What was sent and acknowledged, a byte a reading, and its comparison with what is stored.

A reading proves itself: its `seq` is its number among those of its device, and its value is that number and a checksum
of owner, device, sensorType and `ts`. So hours of readings are checked without a list of them.
"""

import asyncio
import base64
import time
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from runtime.mongodb import mongodb_client
from storage.codec.columns import Columns, Kind
from storage.places.reading import Places
from storage.places.window import Window

CHECK_BITS = 20
# Readings under this sensorType are about a day old, so that retention removes them soon: they are counted apart.
AGED = "aged"
# The queue may be empty before what a persister has taken out of it is stored.
STORED_WITHIN_S = 60.0
SENT, ACKNOWLEDGED = 0, 1
COLUMNS = ("sent", "acknowledged", "stored", "lost", "duplicated", "foreign")


def check_of(owner: str, device: str, sensor_type: str, ts: int) -> int:
    """Return the checksum that the values of an event's readings contain."""
    return zlib.crc32(f"{owner}/{device}/{sensor_type}/{ts}".encode()) & ((1 << CHECK_BITS) - 1)


def value_of(number: int, check: int) -> int:
    """Return the value of a device's reading with this number."""
    return number << CHECK_BITS | check


@dataclass
class Account:
    """The readings of one device: SENT or ACKNOWLEDGED by number."""

    owner: str
    device: str
    states: bytearray = field(default_factory=bytearray)

    def begin(self, count: int) -> int:
        """Add readings that are sent now; return the number of the first."""
        first = len(self.states)
        self.states += bytes(count)
        return first

    def acknowledge(self, numbers: Iterable[int]) -> None:
        """Note that the gateway has accepted these."""
        for number in numbers:
            self.states[number] = ACKNOWLEDGED

    @property
    def acknowledged(self) -> int:
        """How many are acknowledged."""
        return self.states.count(ACKNOWLEDGED)

    def saved(self) -> dict[str, str]:
        """Return it as JSON keeps it."""
        states = base64.b85encode(zlib.compress(self.states)).decode()
        return {"owner": self.owner, "device": self.device, "states": states}

    @classmethod
    def loaded(cls, saved: dict[str, str]) -> "Account":
        """Return what `saved` was made of."""
        states = bytearray(zlib.decompress(base64.b85decode(saved["states"])))
        return cls(saved["owner"], saved["device"], states)


class Outcome(NamedTuple):
    """The counts of COLUMNS; how many aged readings are stored, and the `ts` of the oldest of them, 0 without any."""

    counts: dict[str, int]
    aged: int
    oldest_aged_ms: int


class _Comparison:
    """Counts the copies of each reading, series by series."""

    def __init__(self, accounts: Iterable[Account]) -> None:
        self._accounts = {(account.owner, account.device): account for account in accounts}
        self._copies = {key: np.zeros(len(account.states), np.int32) for key, account in self._accounts.items()}
        self._foreign = 0
        self._aged = 0
        self._oldest_aged_ms = 0

    def add(self, series: dict[str, str], columns: Columns) -> None:
        """Count stored readings of one series."""
        if series["sensorType"] == AGED:
            self._aged += len(columns)
            oldest = int(columns.ts.min())
            self._oldest_aged_ms = min(self._oldest_aged_ms or oldest, oldest)
            return
        key = (series["owner"], series["device"])
        copies = self._copies.get(key)
        if copies is None:
            self._foreign += len(columns)
            return
        times, positions = np.unique(columns.ts, return_inverse=True)
        checks = np.array([check_of(*key, series["sensorType"], int(ts)) for ts in times], np.int64)[positions]
        own = (columns.kinds == Kind.INT64) | (columns.kinds == Kind.INT32)
        own &= (columns.seq >= 0) & (columns.seq < len(copies))
        own &= columns.values == (columns.seq.astype(np.int64) << CHECK_BITS | checks)
        self._foreign += int(len(columns) - own.sum())
        np.add.at(copies, columns.seq[own], 1)

    def outcome(self) -> Outcome:
        found: Counter[str] = Counter(dict.fromkeys(COLUMNS, 0))
        for key, account in self._accounts.items():
            states, copies = np.frombuffer(account.states, np.uint8), self._copies[key]
            found["sent"] += len(states)
            found["acknowledged"] += int((states == ACKNOWLEDGED).sum())
            found["stored"] += int((copies > 0).sum())
            found["lost"] += int(((states == ACKNOWLEDGED) & (copies == 0)).sum())
            found["duplicated"] += int(np.maximum(copies - 1, 0).sum())
        found["foreign"] = self._foreign
        return Outcome(dict(found), self._aged, self._oldest_aged_ms)


async def compared(mongodb_url: str, accounts: Iterable[Account], database: str = "tidegate") -> Outcome:
    """Compare the accounts with what a reader finds, wherever it is stored."""
    comparison = _Comparison(accounts)
    async with mongodb_client(mongodb_url, name="soak", timeout_s=60) as client:
        places = Places(client, database)
        found: list[dict[str, Any]] = await client[database]["series"].find({}, {"_id": 1}).to_list(None)
        for series in (one["_id"] for one in found):
            async for columns in places.stream(Window(series)):
                comparison.add(series, columns)
    return comparison.outcome()


async def compared_once_stored(
    mongodb_url: str, accounts: Iterable[Account], database: str = "tidegate", *, within_s: float = STORED_WITHIN_S
) -> Outcome:
    """Compare them once everything acknowledged is stored, or the time for that is over."""
    accounts, deadline = list(accounts), time.monotonic() + within_s
    while True:
        outcome = await compared(mongodb_url, accounts, database)
        if not outcome.counts["lost"] or time.monotonic() > deadline:
            return outcome
        await asyncio.sleep(1)
