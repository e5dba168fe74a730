"""What this worker has learned of the database, and learns anew when it is another one or an older copy.

Looked at every 2 s and before each write that follows a failed one. What was written into it unseen is repaired:
series in which something was stored since the last good look get their documents again, and a batch that was at hand
meanwhile notes its own (persister/persister.py).
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from broker.deleted_owner import DeletedOwner
from persister.known_series import KnownSeries, key_of_name
from persister.maintenance.database_identity import Identity
from persister.maintenance.deleted_owners import DeletedOwners
from persister.maintenance.store import Upkeep
from runtime.logs import logger

log = logger("persister.maintenance.database_state")

SERIES_AT_ONCE = 1000


class Store(Protocol):
    """Where collections are made and series are noted."""

    async def prepare(self) -> None:
        """Create the collections where they are missing; WriteFailed."""

    async def upsert_series(self, keys: Sequence[dict[str, Any]]) -> None:
        """Write the documents of series; WriteFailed."""


class Learned:
    """Keeps what a worker remembers true of the database that answers. Every call may raise WriteFailed."""

    def __init__(
        self, store: Store, upkeep: Upkeep, identity: Identity, known: KnownSeries, deleted: DeletedOwners
    ) -> None:
        self._store = store
        self._upkeep = upkeep
        self._identity = identity
        self._known = known
        self._deleted = deleted
        self._turn = asyncio.Lock()
        # The deletions up to this number are known.
        self._number = 0
        # Until the first time, and after a change until everything was learned.
        self._is_new = True
        self._to_note: list[bytes] = []

    async def first(self) -> None:
        """Make what is missing in the database and learn of every deleted owner, before anything is stored."""
        async with self._turn:
            await self._learn()

    async def look(self) -> None:
        """Before a write that follows a failed one: the collections are there, and it is the same database."""
        async with self._turn:
            await self._store.prepare()
            await self._compare()

    async def keep_up(self) -> None:
        """See whether it is the same database, and learn of new deletions."""
        async with self._turn:
            await self._compare()
            owners, number = await self._upkeep.deleted_after(self._number)
            if not all(owner in self._deleted for owner in owners):
                # First: a copy of before these deletions must be known as older than what is learned here.
                await self._identity.mark()
                self._deleted.add(owners)
            self._number = number

    async def note_deleted(self, deleted: DeletedOwner) -> None:
        """Write a tombstone, and store nothing more of its owner."""
        await self._upkeep.note_deleted(deleted)
        await self._identity.mark()
        self._deleted.add([deleted.owner])

    async def mark(self) -> None:
        """Note in the database that a series was met."""
        await self._identity.mark()

    async def _compare(self) -> None:
        stored = self._known.take_stored()
        try:
            why = "" if self._is_new else await self._identity.changed()
        except BaseException:
            self._known.stored(stored)
            raise
        if self._is_new:
            self._known.stored(stored)
        if why:
            log.warning("The database is not the one that it was; all that was known of it is learned anew.", why=why)
            self._is_new = True
            self._to_note += self._known.forget_all(stored)
        if self._is_new:
            await self._learn()

    async def _learn(self) -> None:
        await self._store.prepare()
        await self._upkeep.prepare()
        await self._identity.begin()
        owners, self._number = await self._upkeep.all_deleted()
        self._deleted.replace(owners)
        while self._to_note:
            some = self._to_note[-SERIES_AT_ONCE:]
            keys = [key for name in some if (key := key_of_name(name))["owner"] not in self._deleted]
            if keys:
                await self._store.upsert_series(keys)
            del self._to_note[-SERIES_AT_ONCE:]
        await self._identity.mark()
        self._is_new = False
