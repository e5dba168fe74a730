"""PERSISTER → MONGODB: one unordered bulk write a batch; the compound key makes every repetition harmless.

Writes are majority and journaled: what this module reports as stored has survived `kill -9` of the server. After a
failed write, another database may answer, so the `Guard` verifies it before the next write.

If the process dies during a write, any part of the batch may be stored and none of its messages is acknowledged: the
broker redelivers them, and stored readings end as duplicates of the key (docs/decisions/0001).

Each insert names the UUID of its collection, so that none creates a collection without its options. Where readings are
sealed, the collection is renamed now and then, also in the middle of a batch, between two groups of 500 documents or
less. There inserts are ordered: a rename costs one refused document, not the rest of the batch at 30 µs each, and what
was stored before it is known, so that no reading is stored in two collections by that. One may be if the outcome of a
write is not known and it is repeated after a rename: of two copies the one with the lower seal number wins, and readers
and the compactor drop the other. No collection holds one twice. Ordered or not, an insert without errors costs the
server the same.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from bson.errors import BSONError
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError

from persister.batch import Outcome
from persister.collections import SAFE
from persister.maintenance.readings_collection import CollectionInfo, ReadingsCollection, is_mongos
from persister.mongodb_errors import (
    COLLECTION_UUID_MISMATCH,
    DOCUMENT_ERRORS,
    DUPLICATE_KEY,
    UNKNOWN_FIELD,
    WriteFailed,
    WriteRefused,
    error_text,
    is_outage,
    translating_errors,
)
from persister.raw_bson import RawBson
from persister.stored import StoredReadings
from readings.collections import READINGS, SERIES
from runtime.logs import logger
from runtime.mongodb import mongodb_client

log = logger("persister.mongodb")

# In place of MongoDB's code, for what the driver could not even send.
DRIVER_ERROR = 0
RENAMES_PER_WRITE = 5


class Written:
    """The result of one write: by index, the outcome of each document and the server's message for those it refused.

    `ambiguous`: the codes of refusals that may be the server's fault. The outcome of those documents is still RETRY.
    """

    def __init__(
        self, outcomes: list[Outcome], errors: dict[int, str], ambiguous: dict[int, int] | None = None
    ) -> None:
        self.outcomes = outcomes
        self.errors = errors
        self.ambiguous = ambiguous or {}

    def after(self, stored: int) -> "Written":
        """Return the result of a longer write, whose first `stored` documents were stored before these."""
        return Written(
            [Outcome.STORED] * stored + self.outcomes,
            {index + stored: text for index, text in self.errors.items()},
            {index + stored: code for index, code in self.ambiguous.items()},
        )


class _MovedError(Exception):
    """The collection that an insert named has another name now, or is gone. `stored`: the first ones were stored."""

    def __init__(self, stored: int) -> None:
        super().__init__("the collection was renamed, dropped or replaced")
        self.stored = stored


class Guard(Protocol):
    """Knows which database this worker's knowledge comes from."""

    async def verify(self) -> None:
        """Check that it is still the same database, and learn everything again if it is not; WriteFailed."""

    async def mark(self) -> None:
        """Record in the database that something was learned; WriteFailed."""


class ToMongoDB:
    """Writes the readings and series of one database."""

    def __init__(self, client: Any, database: str, *, clustered: bool, sealing: bool = False) -> None:
        self._client = client
        self._database = client[database]
        self._stored = StoredReadings(self._database)
        self._series = self._database.get_collection(SERIES, write_concern=SAFE)
        self._collection = ReadingsCollection(self._database, clustered=clustered)
        self._info = CollectionInfo(None, clustered)
        # Whether inserts name the UUID of their collection; a server may refuse that.
        self._names_collection = True
        self._sealing = sealing
        # Whether the server is mongos, where nothing is sealed; None until it has answered.
        self._is_mongos: bool | None = None
        self._mismatched: Any = None
        # A call has failed: the database is verified before the next write.
        self._must_verify = False
        self._guard: Guard | None = None

    @property
    def database(self) -> Any:
        """The database, for maintenance."""
        return self._database

    @classmethod
    @asynccontextmanager
    async def connected(
        cls, url: str, database: str, *, clustered: bool, timeout_s: float, sealing: bool = False
    ) -> AsyncIterator["ToMongoDB"]:
        """Open a client, which connects when it is first used and again after every loss."""
        async with mongodb_client(url, name="tidegate persister", timeout_s=timeout_s) as client:
            yield cls(client, database, clustered=clustered, sealing=sealing)

    def set_guard(self, guard: Guard) -> None:
        """Verify the database through this guard from now on."""
        self._guard = guard

    async def prepare(self) -> None:
        """Create the collection of readings if it is missing; WriteFailed while MongoDB is away."""
        with translating_errors():
            if self._sealing and self._is_mongos is None:
                self._is_mongos = await is_mongos(self._client)
            self._info = await self._collection.ensure()
        if self._info.uuid is not None and self._info.uuid == self._mismatched and self._names_collection:
            self._names_collection = False
            log.warning("MongoDB refuses the collection UUID that it reports; inserts no longer name the collection.")

    async def write(self, documents: Sequence[bytes]) -> Written:
        """Store documents and return the outcome of each.

        WriteFailed if nothing is certain. WriteRefused if none was taken, perhaps because of one of them, or because
        together they exceed 16 MiB.
        """
        if self._must_verify:
            await self.verify()
        try:
            return await (self._write_in_order(documents) if self._is_ordered else self._write(documents))
        except WriteFailed:
            self._must_verify = True
            raise

    @property
    def _is_ordered(self) -> bool:
        # Through mongos an ordered insert asks one shard after the other.
        return self._sealing and self._names_collection and self._is_mongos is False and self._info.uuid is not None

    async def _write(self, documents: Sequence[bytes]) -> Written:
        try:
            return self._result_of(await self._insert(documents), len(documents))
        except _MovedError as error:
            raise WriteFailed(str(error)) from error

    async def _write_in_order(self, documents: Sequence[bytes]) -> Written:
        """Insert in order, which ends at the first error: then what was stored before it is known.

        If the collection was renamed meanwhile, the others go to the next one. Behind any other error, which is nearly
        always a duplicate, they are inserted unordered.
        """
        stored = 0
        for _ in range(RENAMES_PER_WRITE):
            try:
                reply = await self._insert(documents[stored:], ordered=True)
            except _MovedError as error:
                stored += error.stored
                await self.verify()
                continue
            if errors := reply.get("writeErrors"):
                stored += errors[0]["index"]
            else:
                return self._result_of(reply, len(documents) - stored).after(stored)
            return (await self._write(documents[stored:])).after(stored)
        raise WriteFailed("the collection is renamed again and again")

    async def verify(self) -> None:
        """Check that the collections exist and that the database is still the one this worker knows; WriteFailed."""
        await (self.prepare() if self._guard is None else self._guard.verify())
        self._must_verify = False

    async def _insert(self, documents: Sequence[bytes], *, ordered: bool = False) -> Mapping[str, Any]:
        """Return the reply to one command, which is safe as a whole; WriteFailed if it is not."""
        # One command for all documents. They travel back to back, so the driver may take them for a single one:
        # wrapped one by one they cost 0.26 µs each, with `insert_many` twice that.
        command: dict[str, Any] = {
            "insert": READINGS,
            "ordered": ordered,
            "documents": [RawBson(b"".join(documents))],
            "writeConcern": SAFE.document,
        }
        uuid = self._info.uuid
        if uuid is not None and self._names_collection:
            command["collectionUUID"] = uuid
        try:
            reply: Mapping[str, Any] = await self._database.command(command)
        except BSONError as error:
            raise WriteRefused(error_text(error), DRIVER_ERROR, certain=True) from error
        except OperationFailure as error:
            self._raise_for_collection_error(error.code, uuid, 0)
            if error.code is None or is_outage(error.code, error.details):
                raise WriteFailed(error_text(error)) from error
            raise WriteRefused(error_text(error), error.code, certain=error.code in DOCUMENT_ERRORS) from error
        except PyMongoError as error:
            raise WriteFailed(error_text(error)) from error
        # Before anything else: a reply may say both that documents were stored before a refused one, and that they may
        # yet be rolled back.
        if "writeConcernError" in reply:
            raise WriteFailed(f"stored, but not yet safe: {reply['writeConcernError'].get('errmsg', '')}")
        for item in reply.get("writeErrors", ())[:1]:
            self._raise_for_collection_error(item.get("code"), uuid, reply.get("n", 0))
        return reply

    def _raise_for_collection_error(self, code: int | None, uuid: Any, stored: int) -> None:
        """Raise if the refusal is about the collection that the insert named; `stored`: how many were stored before."""
        if code == COLLECTION_UUID_MISMATCH:
            self._mismatched = uuid
            raise _MovedError(stored)
        if code == UNKNOWN_FIELD and self._names_collection:
            self._names_collection = False
            raise WriteFailed("this server does not know collectionUUID")

    @staticmethod
    def _result_of(reply: Mapping[str, Any], count: int) -> Written:
        written = Written([Outcome.STORED] * count, {})
        errors = reply.get("writeErrors", ())
        if (seen := reply.get("n", 0) + len(errors)) != count:
            raise WriteFailed(f"{count} documents were sent, and the server accounts for {seen}")
        for item in errors:
            index, code, text = item["index"], item.get("code"), str(item.get("errmsg", ""))
            if code == DUPLICATE_KEY:
                written.outcomes[index] = Outcome.DUPLICATE
            elif is_outage(code):
                raise WriteFailed(f"code {code}: {text}")
            else:
                written.errors[index] = text or str(code)
                if code in DOCUMENT_ERRORS:
                    written.outcomes[index] = Outcome.DEAD
                else:
                    written.outcomes[index] = Outcome.RETRY
                    written.ambiguous[index] = code
        return written

    async def find_stored(self, documents: Sequence[bytes]) -> list[int]:
        """Return the indexes of the documents that are stored already; WriteFailed if nothing is certain."""
        try:
            return await self._stored.find(documents, clustered=self._info.clustered)
        except WriteFailed:
            self._must_verify = True
            raise

    async def write_series(self, keys: Sequence[dict[str, Any]]) -> None:
        """Write the documents of new series, so that they may be remembered; WriteFailed if nothing is certain."""
        if self._must_verify:
            await self.verify()
        try:
            await self.upsert_series(keys)
            if self._guard is not None:
                await self._guard.mark()
        except WriteFailed:
            self._must_verify = True
            raise

    async def upsert_series(self, keys: Sequence[dict[str, Any]]) -> None:
        """Write the documents of series; repeating it changes nothing. WriteFailed if nothing is certain."""
        now = datetime.now(UTC)
        updates = [UpdateOne({"_id": key}, {"$setOnInsert": {"firstSeenAt": now}}, upsert=True) for key in keys]
        try:
            await self._series.bulk_write(updates, ordered=False)
        except BulkWriteError as error:
            # Two workers insert the same series at once: either document will do.
            codes = {item.get("code") for item in (error.details or {}).get("writeErrors", ())}
            if codes != {DUPLICATE_KEY} or (error.details or {}).get("writeConcernErrors"):
                raise WriteFailed(error_text(error)) from error
        except PyMongoError as error:
            raise WriteFailed(error_text(error)) from error

    async def check(self) -> None:
        """Raise if MongoDB does not answer: for `/readyz`."""
        await self._client.admin.command("ping")
