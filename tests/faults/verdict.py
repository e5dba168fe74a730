"""The outcome of every reading of a scenario, according to MongoDB and the dead-letter queue themselves."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from broker.connect import open_broker
from broker.topology import DEAD_LETTERS
from readings.document import DocumentError, decode_document, split_documents
from readings.keys import Position
from runtime.mongodb import mongodb_client
from storage.codec.to_documents import documents_of
from storage.places.names import BEGINNING
from storage.places.reading import Places
from storage.places.window import Window
from tests.faults.fleet import Fleet, Identity
from tests.faults.library_fleet import LibraryFleet

COLUMNS = ("sent", "acknowledged", "stored", "dead", "lost", "duplicated", "foreign")
RECOVERS_WITHIN_S = 10.0
# The most memory that any Tidegate process may ever have had.
MAX_BYTES = 200_000_000


@dataclass(frozen=True)
class Stores:
    """Where the readings of a run end up; without RabbitMQ nothing counts as dead."""

    mongodb_url: str
    amqp_url: str = ""
    database: str = "tidegate"


@dataclass
class Verdict:
    """The result of one scenario."""

    name: str
    counts: dict[str, int] = field(default_factory=dict)
    # From the end of the fault until everything that was sent was accepted, and until it was stored.
    accepted_s: float = 0.0
    recovered_s: float = 0.0
    largest_bytes: int = 0
    failure: str = ""
    note: str = ""
    # Those of devices without the library that are nowhere.
    lost: set[Identity] = field(default_factory=set)
    recovers_within_s: float = RECOVERS_WITHIN_S
    stored_later_by_s: float = 0.0

    @property
    def late(self) -> bool:
        """Whether recovery took too long."""
        stored_within_s = self.recovers_within_s + self.stored_later_by_s
        return self.accepted_s > self.recovers_within_s or self.recovered_s > stored_within_s

    @property
    def large(self) -> bool:
        """Whether a process used too much memory."""
        return self.largest_bytes >= MAX_BYTES

    @property
    def holds(self) -> bool:
        """Whether I1 to I5 hold: nothing is lost, stored twice or invented, and time and memory are within bounds.

        Nothing may be dead either: devices send only good readings here, and a good reading must not become one.
        """
        return (
            not self.failure
            and not self.large
            and not self.late
            and not any(self.counts.get(name) for name in ("lost", "dead", "duplicated", "foreign"))
        )


def stored_of(stores: Stores, sensor_type: str) -> list[tuple[Identity, Any]]:
    """Return what a reader finds under this sensorType, for any owner, wherever it is stored."""
    return asyncio.run(_stored_of(stores, sensor_type))


async def _stored_of(stores: Stores, sensor_type: str) -> list[tuple[Identity, Any]]:
    documents = await stored_documents(stores, sensor_type)
    return [(identity_of(one["_id"]), one["value"]) for one in documents]


async def stored_documents(stores: Stores, sensor_type: str) -> list[dict[str, Any]]:
    """Return what a reader finds under this sensorType as documents."""
    found: list[dict[str, Any]] = []
    async with reading(stores, sensor_type) as (places, windows):
        for window in windows:
            upwards = await _documents(places, window)
            downwards = await _documents(places, replace(window, descending=True))
            # More may have been stored meanwhile.
            assert set(upwards) <= set(downwards), f"{window.series} has other readings backwards"
            found += map(decode_document, upwards)
    return found


@asynccontextmanager
async def reading(stores: Stores, sensor_type: str) -> AsyncIterator[tuple[Places, list[Window]]]:
    """Open the places of readings; yields them with a window for each whole series of this sensorType."""
    async with mongodb_client(stores.mongodb_url, name="chaos", timeout_s=20) as client:
        series = await client[stores.database]["series"].find({"_id.sensorType": sensor_type}).to_list(None)
        yield Places(client, stores.database), [Window(one["_id"]) for one in series]


async def _documents(places: Places, window: Window) -> list[bytes]:
    return [each async for columns in places.stream(window) for each in documents_of(columns)]


async def until_stored(stores: Stores, fleet: Fleet, sensor_type: str, within_s: float) -> None:
    """Return once everything acknowledged is stored, or the time is over; only what is still missing is read again."""
    missing = fleet.acknowledged()
    deadline = time.monotonic() + within_s
    while missing and time.monotonic() < deadline:
        first_ts = min(ts for _, _, _, ts, _ in missing)
        missing -= await asyncio.to_thread(stored_since, stores, sensor_type, first_ts)
        if missing:
            await asyncio.sleep(0.1)


def stored_since(stores: Stores, sensor_type: str, first_ts: int) -> set[Identity]:
    """Return which readings of this sensorType from a time on are stored."""
    return asyncio.run(_stored_since(stores, sensor_type, (first_ts, BEGINNING[1])))


async def _stored_since(stores: Stores, sensor_type: str, start: Position) -> set[Identity]:
    found: set[Identity] = set()
    async with reading(stores, sensor_type) as (places, windows):
        for window in windows:
            owner, device, _ = (window.series[name] for name in ("owner", "device", "sensorType"))
            async for columns in places.stream(replace(window, start=start)):
                # Not a document of each: that takes 5 µs instead of 0.5, and a backlog's would count as recovery.
                keys = zip(columns.ts.tolist(), columns.seq.tolist(), strict=True)
                found.update((owner, device, sensor_type, ts, seq) for ts, seq in keys)
    return found


async def dead_of(stores: Stores, sensor_type: str) -> list[Identity]:
    """Return the readings of this sensorType among the dead letters."""
    found: list[Identity] = []
    if not stores.amqp_url:
        return found
    async with open_broker(stores.amqp_url) as broker:
        if not await broker.depth(DEAD_LETTERS):
            return found
        async with broker.browser(DEAD_LETTERS) as browser:
            async for delivery in browser:
                keys = _keys(delivery.message.body)
                found += [identity_of(key) for key in keys if key["sensorType"] == sensor_type]
    return found


def _keys(body: bytes) -> list[dict[str, Any]]:
    """Return the keys of the readings in a dead letter, whatever else it contains."""
    keys: list[dict[str, Any]] = []
    with suppress(DocumentError):
        for part in split_documents(body):
            with suppress(DocumentError):
                keys.append(decode_document(part)["_id"])
    return keys


async def judged(stores: Stores, fleet: Fleet, sensor_type: str) -> tuple[dict[str, int], set[Identity]]:
    """Count what has become of everything that was sent, after `until_stored`; return what is lost, too."""
    sent, acknowledged = fleet.sent(), fleet.acknowledged()
    stored = await asyncio.to_thread(stored_of, stores, sensor_type)
    dead = set(await dead_of(stores, sensor_type))
    lost = acknowledged - {identity for identity, _ in stored} - dead
    copies = Counter(value for _, value in stored)
    counts = {
        "sent": len(sent),
        "acknowledged": len(acknowledged),
        "stored": len(stored),
        "dead": len(dead),
        "lost": len(lost),
        "duplicated": sum(number - 1 for number in copies.values()),
        "foreign": sum(1 for identity, value in stored if sent.get(identity) != value),
    }
    return counts, lost


async def judged_library(stores: Stores, library: LibraryFleet, sensor_type: str, within_s: float) -> dict[str, int]:
    """Count what is stored of the devices that use the library, once nothing of theirs is pending.

    All of it is by then, as their buffers are freed on receipts; unless MongoDB was restored since: `within_s`.
    """
    failures = library.failures()
    assert not failures, failures[0]
    sent, offered = library.sent(), library.offered()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        stored = [value for _, value in await asyncio.to_thread(stored_of, stores, sensor_type)]
        lost = sent.difference(stored)
        if not lost or loop.time() > deadline:
            break
        await asyncio.sleep(0.5)
    copies = Counter(stored)
    return {
        "sent": len(sent),
        "acknowledged": len(sent),
        "stored": len(sent.intersection(stored)),
        "lost": len(lost),
        "duplicated": sum(number - 1 for number in copies.values()),
        "foreign": len(copies.keys() - offered),
    }


def identity_of(key: dict[str, Any]) -> Identity:
    return (key["owner"], key["device"], key["sensorType"], int(key["ts"]), int(key["seq"]))


def largest_bytes(pids: Iterable[int]) -> int:
    """Return the peak memory of the largest of these processes."""
    largest = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    largest = max(largest, int(line.split()[1]) * 1024)
    return largest
