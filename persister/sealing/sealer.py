"""Renames `readings` to `readings.sealed.<n>` when it is due, and creates the next one.

What each step leaves if the process dies after it, and what repairs it:

- The number is taken, and waits: nothing has that name. Readers find nothing there, and the compactor takes the number
  off the list some minutes later.
- The collection is renamed: `readings` is created by the first worker whose insert is refused, because it names the
  UUID (persister/to_mongodb.py), or by the next check. An insert by name would create it without its options (by hand,
  by a server older than 6.0): such a collection is sealed again at once, by any worker. The first one of a database
  is not: it is sealed when it is due.
- The next collection is created: its birth is recorded by the next check.

The lease only keeps workers from doing the same at once. A collection is renamed by its UUID, and the UUID is read
before the number is taken: so one collection is sealed once, and of two the earlier one has the lower number, also if
this process was stopped in between for longer than its lease.
"""

import asyncio
import re
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pymongo
from pymongo.errors import OperationFailure, PyMongoError

from broker.failpoints import failpoint
from persister.maintenance.readings_collection import ReadingsCollection, is_mongos
from persister.mongodb_errors import (
    COLLECTION_UUID_MISMATCH,
    NAMESPACE_NOT_FOUND,
    UNAUTHORIZED,
    UNKNOWN_FIELD,
    WriteFailed,
    error_text,
    translating_errors,
)
from persister.sealing.metrics import SealingMetrics
from persister.sealing.state_document import MAX_WAITING, SealingState, StateDocument
from readings.collections import READINGS
from runtime.logs import logger
from storage.places.names import SEALED_PREFIX, seal_number, sealed_name

log = logger("persister.sealing")

# A check is one count, about 0.2 ms of this process and less of the server.
CHECK_EVERY_S = 1.0
# Reads the list of collections and the state as well.
LOOK_EVERY_S = 10.0
LEASE_S = 60.0
# It waits for the lock of one collection, behind operations that began before; mongod itself takes 1 to 3 ms.
RENAME_TIMEOUT_S = 30.0
# An insert by name that comes between rename and creation makes one more seal necessary; under load so does the next.
TRIES = 3

# The server has done nothing and will do nothing.
_REFUSALS = {UNAUTHORIZED, NAMESPACE_NOT_FOUND, COLLECTION_UUID_MISMATCH, UNKNOWN_FIELD}
# The birth of the next collection, recorded with majority after this, is safe only if the rename is. Waiting for that
# here would hold up the next writes.
_APPLIED = {"w": 1}


@dataclass(frozen=True, slots=True)
class _Found:
    """`readings` as it is listed (None: it does not exist), the numbers of sealed collections, and the state."""

    hot: dict[str, Any] | None
    sealed: frozenset[int]
    state: SealingState

    @property
    def uuid(self) -> Any:
        """The UUID of `readings`; None if it does not exist."""
        return None if self.hot is None else self.hot["info"]["uuid"]

    @property
    def has_options(self) -> bool:
        """Whether `readings` was created with options, not by an insert."""
        return self.hot is not None and bool(self.hot.get("options"))

    @property
    def age_seconds(self) -> float:
        """For how long `readings` has received readings; 0 if that is not known."""
        return self.state.age_seconds if self.uuid == self.state.hot_uuid else 0.0

    @property
    def missing(self) -> frozenset[int]:
        """The numbers of sealed collections that exist and do not wait."""
        return self.sealed - self.state.waiting.keys()

    @property
    def must_repair(self) -> bool:
        """Whether the state differs from what exists: at the first start, after a crash or a restore."""
        return self.hot is None or self.uuid != self.state.hot_uuid or bool(self.missing)


class Sealer:
    """Seals the readings of one database, for one process. Every public method may raise WriteFailed."""

    def __init__(
        self,
        database: Any,
        *,
        clustered: bool,
        seal_readings: int,
        seal_seconds: float,
        metrics: SealingMetrics,
    ) -> None:
        self._database = database
        self._readings = database[READINGS]
        self._collection = ReadingsCollection(database, clustered=clustered)
        self._state = StateDocument(database)
        self._seal_readings = seal_readings
        self._seal_seconds = seal_seconds
        self._metrics = metrics
        self._holder = secrets.token_hex(12)
        self._look_at = 0.0
        self._is_mongos: bool | None = None
        self._is_refusing = False

    async def run(self) -> None:
        """Seal whenever it is due, until cancelled."""
        is_failing = False
        while True:
            try:
                await self.seal_if_due()
            except WriteFailed as error:
                if not is_failing:
                    log.warning("Readings could not be sealed; trying again.", error=str(error))
                is_failing = True
            else:
                is_failing = False
            await asyncio.sleep(CHECK_EVERY_S)

    async def seal_if_due(self) -> int | None:
        """Seal if there are enough readings or they are old enough; return the last number sealed, None if none was.

        Costs one count while nothing is due, and every ten seconds a look at the list of collections and the state.
        """
        with translating_errors():
            is_large = await self._readings.estimated_document_count() >= self._seal_readings
            if time.monotonic() < self._look_at and (self._is_refusing or not is_large):
                return None
            self._look_at = time.monotonic() + min(LOOK_EVERY_S, self._seal_seconds)
            if await self._through_mongos():
                return None
            found = await self._look()
            reason = await self._reason(found, force=False)
        if found.must_repair or (reason and self._has_room(found)):
            return await self.seal()
        return None

    async def seal(self, *, force: bool = False) -> int | None:
        """Seal what is due, or with `force` whatever is there; return the last number sealed, None if none was.

        None as well while another process seals, while MAX_WAITING wait, and through mongos.
        """
        with translating_errors():
            if await self._through_mongos() or not await self._state.claim(self._holder, LEASE_S):
                return None
            try:
                return await self._seal(force=force)
            finally:
                with suppress(WriteFailed):
                    await self._state.release(self._holder)

    async def seal_all(self) -> bool:
        """Seal whatever is there; return whether it is done.

        False while another process seals, or may do so, and while MAX_WAITING wait: then call it again. Through mongos
        there is nothing to do.
        """
        if await self.seal(force=True) is not None:
            return True
        with translating_errors():
            return await self._through_mongos() or await self._collection.is_empty()

    async def _seal(self, *, force: bool) -> int | None:
        last: int | None = None
        for _ in range(TRIES):
            found = await self._repaired()
            reason = await self._reason(found, force=force and last is None)
            if not reason or not self._has_room(found):
                break
            number = await self._seal_found(found, reason)
            if number is None:
                break
            last = number
            self._look_at = 0.0  # an insert may have created the next one, and had stored nothing yet
        return last

    async def _seal_found(self, found: _Found, reason: str) -> int | None:
        started = time.monotonic()
        number = await self._state.take_number(self._holder)
        if number is None:
            return None
        failpoint("persister.before_rename")
        if not await self._rename(found.uuid, number):
            return None
        failpoint("persister.renamed")
        self._metrics.seals.inc()
        await self._collection.create()
        log.info(
            "Readings were sealed.",
            number=number,
            reason=reason,
            waiting=len(found.state.waiting) + 1,
            seconds=round(time.monotonic() - started, 3),
        )
        return number

    async def _rename(self, uuid: Any, number: int) -> bool:
        """Rename the collection with this UUID; False if it has another name already. WriteFailed if it is not done."""
        command = {
            "renameCollection": f"{self._database.name}.{READINGS}",
            "to": f"{self._database.name}.{sealed_name(number)}",
            "collectionUUID": uuid,
            "writeConcern": _APPLIED,
        }
        try:
            with pymongo.timeout(RENAME_TIMEOUT_S):
                await self._database.client.admin.command(command)
        except PyMongoError as error:
            code = error.code if isinstance(error, OperationFailure) else None
            if code in _REFUSALS:
                await self._state.withdraw(self._holder, number)
                if code in (NAMESPACE_NOT_FOUND, COLLECTION_UUID_MISMATCH):
                    return False
            elif await self._is_renamed(uuid, number):
                return True
            raise WriteFailed(error_text(error)) from error
        return True

    async def _is_renamed(self, uuid: Any, number: int) -> bool:
        """Return whether it was renamed although the answer was lost. If not yet, it may still be."""
        cursor = await self._database.list_collections(filter={"name": sealed_name(number)})
        return [one["info"]["uuid"] async for one in cursor] == [uuid]

    async def _look(self) -> _Found:
        pattern = f"^{re.escape(READINGS)}$|^{re.escape(SEALED_PREFIX)}"
        cursor = await self._database.list_collections(filter={"name": {"$regex": pattern}})
        listed = {one["name"]: one async for one in cursor}
        sealed = frozenset(number for name in listed if (number := seal_number(name)) is not None)
        # Read after the list: a number waits before its collection is renamed.
        state = await self._state.read()
        self._metrics.waiting.set(len(state.waiting))
        self._metrics.oldest_seconds.set(state.oldest_seconds)
        return _Found(listed.get(READINGS), sealed, state)

    async def _repaired(self) -> _Found:
        """Make the state say what exists, and return both."""
        found = await self._look()
        if found.hot is None:
            await self._collection.create()
            found = await self._look()
        if found.missing:
            log.warning("Sealed collections were not on the list; now they are.", numbers=sorted(found.missing))
            await self._state.include(found.sealed)
        if found.uuid != found.state.hot_uuid:
            await self._state.set_birth(self._holder, found.uuid, found.sealed)
        return await self._look() if found.must_repair else found

    async def _reason(self, found: _Found, *, force: bool) -> str:
        """Return why `readings` is due, in words for a log; an empty string if it is not."""
        if found.hot is None or await self._collection.is_empty():
            return ""
        if force:
            return "asked for"
        if found.state.last_number and not found.has_options:
            return "an insert created it, without its options"
        if await self._readings.estimated_document_count() >= self._seal_readings:
            return "large enough"
        return "old enough" if found.age_seconds >= self._seal_seconds else ""

    def _has_room(self, found: _Found) -> bool:
        """Return whether one more may wait; called when one is due."""
        if len(found.state.waiting) < MAX_WAITING:
            self._is_refusing = False
            return True
        self._metrics.refused.inc()
        if not self._is_refusing:
            log.warning("Nothing more is sealed while so many wait to be compacted.", waiting=len(found.state.waiting))
        self._is_refusing = True
        return False

    async def _through_mongos(self) -> bool:
        """Return whether this is a sharded cluster, in which nothing is sealed."""
        if self._is_mongos is None:
            self._is_mongos = await is_mongos(self._database.client)
            if self._is_mongos:
                log.warning("Nothing is sealed through mongos: a sharded collection keeps its name.")
        return self._is_mongos
