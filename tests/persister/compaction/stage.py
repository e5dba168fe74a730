"""A database that a real persister writes and seals, and from which owners and old readings are removed."""

from typing import Any

import bson
from prometheus_client import CollectorRegistry

from broker.deleted_owner import DeletedOwner
from persister.maintenance.removal import Removal
from persister.maintenance.store import MaintenanceStore
from persister.mongodb_errors import WriteFailed
from persister.sealing.metrics import SealingMetrics
from persister.sealing.sealer import Sealer
from persister.sealing.state_document import StateDocument
from persister.to_mongodb import ToMongoDB
from readings.document import id_bytes
from readings.keys import series_key
from storage.places.reading import Places
from tests.persister.compaction.answers import RETENTION_DAYS, SENSOR_TYPE, Name, Sensors, position
from tests.persister.compaction.world import World


class Stage(World):
    """A world with a real persister's writes and seals. `first_ms`: older readings are past their retention."""

    def __init__(self, client: Any, name: str) -> None:
        super().__init__(client[name])
        self.places = Places(client, name)
        self.to_mongodb = ToMongoDB(client, name, clustered=False, sealing=True)
        self.sealer = Sealer(
            client[name],
            clustered=False,
            seal_readings=10**9,
            seal_seconds=10**9,
            metrics=SealingMetrics(CollectorRegistry()),
        )
        self.maintenance = MaintenanceStore(client[name])
        self.first_ms = -(2**63)
        self.erased: set[str] = set()
        # Keys of readings whose write has begun: a reader may see one before its writer knows that it is stored.
        self.begun: set[bytes] = set()

    async def write(self, documents: list[bytes]) -> None:
        """Store what is not an erased owner's, as a persister does."""
        kept = {id_bytes(one): one for one in reversed(documents) if owner_of(one) not in self.erased}
        self.begun |= kept.keys()
        while kept:
            try:
                written = await self.to_mongodb.write(list(kept.values()))
            except WriteFailed:
                continue  # it was renamed, and all of it is written again
            assert not written.errors
            break
        self.model = kept | self.model

    def expected(self, name: Name) -> list[bytes]:
        """Return what a reader has to find of a series, in order."""
        found = (one for one in self.model.values() if names_of(one) == name and position(one)[0] >= self.first_ms)
        return sorted(found, key=position)

    async def erase(self, owner: str) -> None:
        """Erase an owner, as a sweep does."""
        self.erased.add(owner)
        self.model = {key: one for key, one in self.model.items() if owner_of(one) != owner}
        await self.maintenance.write_tombstone(DeletedOwner(owner, 0))
        await Removal(self.database).of_owner(owner)

    async def enforce_retention(self, sensors: Sensors) -> None:
        """Remove what is older than the limit, as the worker does that enforces the retention."""
        self.first_ms = sensors.limit_ms
        await StateDocument(self.database).publish_retention(RETENTION_DAYS, {})
        for owner, device in sensors.names:
            series = series_key(owner, device, SENSOR_TYPE)
            await Removal(self.database).before(series, sensors.limit_ms)


def names_of(document: bytes) -> Name:
    key = bson.decode(document)["_id"]
    return key["owner"], key["device"]


def owner_of(document: bytes) -> str:
    return names_of(document)[0]
