"""A database whose readings are sealed, and what is in it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CollectorRegistry
from pymongo import MongoClient

from persister.batch import Outcome
from persister.mongodb_errors import WriteFailed
from persister.sealing.metrics import SealingMetrics
from persister.sealing.sealer import Sealer
from persister.to_mongodb import ToMongoDB
from readings.document import encode_document
from readings.reading import Reading
from storage.places.names import seal_number
from storage.places.state import STATE

TS = 1_700_000_000_000
NEVER = 10**9
Mongo = tuple[str, str]
Identity = tuple[str, int]


def document(number: int, device: str = "device") -> bytes:
    return encode_document("owner", device, Reading("temperature", number, TS + number, 0, TS))


def sealer(
    database: Any,
    *,
    clustered: bool = False,
    readings: int = NEVER,
    seconds: float = 86_400,
    registry: CollectorRegistry | None = None,
) -> Sealer:
    metrics = SealingMetrics(registry or CollectorRegistry())
    return Sealer(database, clustered=clustered, seal_readings=readings, seal_seconds=seconds, metrics=metrics)


class Stored:
    """A look at one database."""

    def __init__(self, mongo: Mongo) -> None:
        self._url, self._name = mongo

    def collections(self) -> dict[str, dict[str, Any]]:
        """Return the options of `readings` and of each sealed collection."""
        with MongoClient[dict[str, Any]](self._url) as client:
            return {
                one["name"]: one.get("options", {})
                for one in client[self._name].list_collections()
                if one["name"] == "readings" or seal_number(one["name"]) is not None
            }

    def sealed(self) -> list[int]:
        """Return the numbers of the sealed collections that exist."""
        return sorted(number for name in self.collections() if (number := seal_number(name)) is not None)

    def copies(self) -> Counter[Identity]:
        """Return how often each reading is stored, by device and number."""
        found: Counter[Identity] = Counter()
        with MongoClient[dict[str, Any]](self._url) as client:
            for name in self.collections():
                for one in client[self._name][name].find({}, {"_id.device": 1, "value": 1}):
                    found[one["_id"]["device"], one["value"]] += 1
        return found

    def count(self, name: str) -> int:
        with MongoClient[dict[str, Any]](self._url) as client:
            return client[self._name][name].count_documents({})

    def state(self) -> dict[str, Any]:
        with MongoClient[dict[str, Any]](self._url) as client:
            return client[self._name]["readings.blocks"].find_one({"_id": STATE}) or {}

    def waiting(self) -> list[int]:
        return [one["number"] for one in self.state().get("waiting", ())]

    def update_state(self, change: dict[str, Any]) -> None:
        with MongoClient[dict[str, Any]](self._url) as client:
            client[self._name]["readings.blocks"].update_one({"_id": STATE}, change)

    def end_lease(self) -> None:
        """End the lease of whoever seals, as time would."""
        self.update_state({"$unset": {"sealing.until": ""}})


async def written(store: ToMongoDB, documents: Sequence[bytes]) -> list[Outcome]:
    """Write as the persister does: again until it succeeds."""
    while True:
        try:
            return (await store.write(documents)).outcomes
        except WriteFailed:
            await asyncio.sleep(0.02)


@asynccontextmanager
async def writing(store: ToMongoDB, device: str, *, batch: int) -> AsyncIterator[set[Identity]]:
    """Write new readings without a pause while the context lasts; yields those that are stored."""
    stored: set[Identity] = set()
    ending = asyncio.Event()

    async def write() -> None:
        start = 0
        while not ending.is_set():
            numbers = range(start, start + batch)
            await written(store, [document(number, device) for number in numbers])
            stored.update((device, number) for number in numbers)
            start += batch

    task = asyncio.ensure_future(write())
    try:
        yield stored
    finally:
        ending.set()
        await task
