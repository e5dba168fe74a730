"""What this worker knows of the database; learned again if another database or an older copy answers.

Checked every 2 s, and before each write that follows a failed one. What was written to the other database in the
meantime is repaired: series into which something was stored since the last good check get their documents again, and a
batch in progress writes its own (persister/persister.py).
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from broker.deleted_owner import DeletedOwner
from persister.known_series import KnownSeries, key_of_name
from persister.maintenance.database_identity import DatabaseIdentity
from persister.maintenance.deleted_owners import DeletedOwners
from persister.maintenance.store import MaintenanceStore
from runtime.logs import logger

log = logger("persister.maintenance.database_state")

SERIES_PER_WRITE = 1000


class Store(Protocol):
    """Where the collection of readings is created and series are written."""

    async def prepare(self) -> None:
        """Create the collection if it is missing; WriteFailed."""

    async def upsert_series(self, keys: Sequence[dict[str, Any]]) -> None:
        """Write the documents of series; WriteFailed."""


class DatabaseState:
    """Keeps a worker's knowledge true of the database that answers. Every method may raise WriteFailed."""

    def __init__(
        self,
        store: Store,
        maintenance: MaintenanceStore,
        identity: DatabaseIdentity,
        known: KnownSeries,
        deleted: DeletedOwners,
    ) -> None:
        self._store = store
        self._maintenance = maintenance
        self._identity = identity
        self._known = known
        self._deleted = deleted
        self._lock = asyncio.Lock()
        # The highest number of a known deletion.
        self._number = 0
        # Until the first load, and after a change until everything is loaded again.
        self._must_load = True
        self._series_to_restore: list[bytes] = []

    async def load(self) -> None:
        """Create what is missing in the database and load every deleted owner, before anything is stored."""
        async with self._lock:
            await self._load()

    async def verify(self) -> None:
        """Check that the collections exist and the database is the same, before a write that follows a failed one."""
        async with self._lock:
            await self._store.prepare()
            await self._load_if_changed()

    async def refresh(self) -> None:
        """Check that the database is the same, and load new deletions."""
        async with self._lock:
            await self._load_if_changed()
            owners, number = await self._maintenance.deleted_after(self._number)
            if not all(owner in self._deleted for owner in owners):
                # Marked first: a copy taken before these deletions has to be older than what is learned here.
                await self._identity.mark()
                self._deleted.add(owners)
            self._number = number

    async def record_deletion(self, deleted: DeletedOwner) -> None:
        """Write a tombstone, and from then on store nothing more of its owner."""
        await self._maintenance.write_tombstone(deleted)
        await self._identity.mark()
        self._deleted.add([deleted.owner])

    async def mark(self) -> None:
        """Record in the database that a series was seen."""
        await self._identity.mark()

    async def _load_if_changed(self) -> None:
        stored = self._known.take_stored()
        try:
            why = "" if self._must_load else await self._identity.mismatch()
        except BaseException:
            self._known.record_stored(stored)
            raise
        if self._must_load:
            self._known.record_stored(stored)
        if why:
            log.warning("The database has changed; everything known of it is loaded again.", why=why)
            self._must_load = True
            self._series_to_restore += self._known.forget_all(stored)
        if self._must_load:
            await self._load()

    async def _load(self) -> None:
        await self._store.prepare()
        await self._maintenance.prepare()
        await self._identity.adopt()
        owners, self._number = await self._maintenance.all_deleted()
        self._deleted.replace(owners)
        while self._series_to_restore:
            names = self._series_to_restore[-SERIES_PER_WRITE:]
            keys = [key for name in names if (key := key_of_name(name))["owner"] not in self._deleted]
            if keys:
                await self._store.upsert_series(keys)
            del self._series_to_restore[-SERIES_PER_WRITE:]
        await self._identity.mark()
        self._must_load = False
