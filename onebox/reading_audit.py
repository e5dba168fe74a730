"""The outcomes of this run's readings, counted as the persister settles them and checked against MongoDB.

`lost` does not trust the pipeline: every acknowledged reading is looked up by its key, wherever readings are stored,
and one that is neither there nor among the dead letters is lost. Readings found by a sweep are forgotten, so memory is
bounded by what was acknowledged since the last one.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager

from pymongo.errors import PyMongoError

from broker.embedded.broker import EmbeddedBroker
from broker.topology import DEAD_LETTERS
from persister.batch import Outcome
from readings.document import DocumentError, decode_document, received_ms, split_documents
from readings.keys import series_key
from runtime.background import background
from runtime.logs import logger
from runtime.mongodb import mongodb_client
from storage.codec.packed import BlockError
from storage.places.moving import PlacesChanged
from storage.places.names import BEGINNING
from storage.places.reading import Places
from storage.places.window import Window

log = logger("onebox.reading_audit")

SWEEP_EVERY_S = 3.0
Series = tuple[str, str, str]
Identity = tuple[int, int]


class ReadingAudit:
    """Follows the readings of one run."""

    def __init__(self, places: Places, started_ms: int) -> None:
        self._places = places
        self._started_ms = started_ms
        self._acknowledged: dict[Series, set[Identity]] = {}
        self.stored = 0
        self.duplicates = 0
        self.dead = 0
        self.erased = 0

    @classmethod
    @asynccontextmanager
    async def over(cls, url: str, database: str, started_ms: int) -> AsyncIterator["ReadingAudit"]:
        """Open the audit of a run that began at `started_ms`, and sweep while the context lasts."""
        async with mongodb_client(url, name="tidegate onebox", timeout_s=10) as client:
            audit = cls(Places(client, database), started_ms)
            async with background(audit._keep_sweeping(), name="audit"):
                yield audit

    @property
    def settled(self) -> int:
        """The number of readings accepted by this run that have an outcome."""
        return self.stored + self.duplicates + self.dead + self.erased

    def acknowledged(self, owner: str, device: str, sensor_type: str, identities: Iterable[Identity]) -> None:
        """Record readings as acknowledged; an identity is `ts` (milliseconds since 1970) and `seq`."""
        self._acknowledged.setdefault((owner, device, sensor_type), set()).update(identities)

    def watch(self, documents: list[bytes], outcomes: list[Outcome]) -> None:
        """Count the outcomes of a settled message, unless an earlier run accepted it."""
        try:
            if not documents or received_ms(documents[0]) < self._started_ms:
                return
        except DocumentError:
            return
        self.stored += outcomes.count(Outcome.STORED)
        self.duplicates += outcomes.count(Outcome.DUPLICATE)
        self.dead += outcomes.count(Outcome.DEAD)
        self.erased += outcomes.count(Outcome.ERASED)

    async def _keep_sweeping(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            try:
                await self.sweep()
            except (PyMongoError, BlockError, PlacesChanged) as error:
                log.warning("The readings could not be checked; retrying.", error=str(error)[:200])

    async def sweep(self) -> None:
        """Look up the acknowledged readings and forget those that are stored."""
        for series, identities in list(self._acknowledged.items()):
            if not identities:
                continue
            first, last = min(identities)[0], max(identities)[0]
            window = Window(series_key(*series), (first, BEGINNING[1]), (last + 1, BEGINNING[1]))
            async with aclosing(self._places.stream(window)) as batches:
                async for found in batches:
                    identities.difference_update(zip(found.ts.tolist(), found.seq.tolist(), strict=True))

    async def lost(self, broker: EmbeddedBroker) -> int:
        """Return how many acknowledged readings are neither in MongoDB nor among the dead letters."""
        await self.sweep()
        missing = sum(map(len, self._acknowledged.values()))
        if missing:
            async for body in broker.bodies(DEAD_LETTERS):
                self._forget_dead(body)
            missing = sum(map(len, self._acknowledged.values()))
        return missing

    def _forget_dead(self, body: bytes) -> None:
        try:
            keys = [decode_document(document)["_id"] for document in split_documents(body)]
        except DocumentError:
            return
        for key in keys:
            identities = self._acknowledged.get((key["owner"], key["device"], key["sensorType"]), set())
            identities.discard((int(key["ts"]), int(key["seq"])))
