"""PERSISTER → MONGODB: one unordered bulk write a batch; the compound key makes every repetition harmless.

Writes are majority and journaled: what this module calls stored has survived `kill -9` of the server. After a write
that failed it may be another database that answers, so before the next one `Guard` looks.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from bson.codec_options import CodecOptions
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne, WriteConcern
from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from persister.batch import Outcome
from persister.maintenance.readings_collection import Form, ReadingsCollection
from persister.mongodb_errors import (
    COLLECTION_UUID_MISMATCH,
    DUPLICATE_KEY,
    OF_THE_DOCUMENT,
    UNKNOWN_FIELD,
    is_outage,
)
from readings.collections import READINGS, SERIES
from readings.document import id_bytes
from runtime.logs import logger
from runtime.mongodb import mongodb_client

log = logger("persister.mongodb")

_SAFE = WriteConcern(w="majority", j=True)

ASKED_AT_ONCE = 1000
# In place of a code, for what the driver could not even send.
OF_THE_DRIVER = 0


class WriteFailed(Exception):
    """MongoDB did not take the batch, or did not say that it is safe: write all of it again."""


class WriteRefused(Exception):
    """MongoDB took nothing of the batch; unless `certain`, its code does not tell whether what is in it is to blame."""

    def __init__(self, message: str, code: int, *, certain: bool) -> None:
        super().__init__(message)
        self.code = code
        self.certain = certain


class Written:
    """What became of each document of one write, and the server's words for those it refused.

    `doubts`: the codes of those whose refusal may as well be the server's fault. Their outcome is still a retry.
    """

    def __init__(self, outcomes: list[Outcome], errors: dict[int, str], doubts: dict[int, int] | None = None) -> None:
        self.outcomes = outcomes
        self.errors = errors
        self.doubts = doubts or {}


class _Bytes:
    """What the driver's encoder takes as a document, marked as one that has its bytes already."""

    __slots__ = ("raw",)
    _type_marker = 101

    def __init__(self, raw: bytes) -> None:
        self.raw = raw


class Guard(Protocol):
    """Knows what a worker has learned of the database."""

    async def look(self) -> None:
        """See whether it is the database that it was, and learn anew where it is not; WriteFailed."""

    async def mark(self) -> None:
        """Note in the database that something was learned; WriteFailed."""


class ToMongoDB:
    """Writes readings and series of one database."""

    def __init__(self, client: Any, database: str, *, clustered: bool) -> None:
        self._client = client
        self._database = client[database]
        # With what is safe only: a reading that a failover may still take back is not there.
        self._raw = self._database.get_collection(
            READINGS, codec_options=CodecOptions(document_class=RawBSONDocument), read_concern=ReadConcern("majority")
        )
        self._series = self._database.get_collection(SERIES, write_concern=_SAFE)
        self._collection = ReadingsCollection(self._database, clustered=clustered)
        self._form = Form(None, clustered)
        # Whether inserts name the collection that they mean; a server may have reasons of its own to refuse that.
        self._names_collection = True
        self._mismatched: Any = None
        # Something failed: whether all is as it was is to be seen before the next write.
        self._in_doubt = False
        self._guard: Guard | None = None

    @property
    def database(self) -> Any:
        """The database, for the upkeep of what is stored."""
        return self._database

    @classmethod
    @asynccontextmanager
    async def connected(
        cls, url: str, database: str, *, clustered: bool, timeout_s: float
    ) -> AsyncIterator["ToMongoDB"]:
        """Open a client, which connects when it is first used and again after every loss."""
        async with mongodb_client(url, name="tidegate persister", timeout_s=timeout_s) as client:
            yield cls(client, database, clustered=clustered)

    def guarded_by(self, guard: Guard) -> None:
        """Look through this whether the database is the one that it was."""
        self._guard = guard

    async def prepare(self) -> None:
        """Create the collections where they are missing; WriteFailed while MongoDB is away."""
        try:
            self._form = await self._collection.prepared()
        except PyMongoError as error:
            raise WriteFailed(_words(error)) from error
        if self._form.uuid is not None and self._form.uuid == self._mismatched and self._names_collection:
            self._names_collection = False
            log.warning("MongoDB refuses the UUID that it tells itself; inserts no longer name the collection.")

    async def write(self, documents: Sequence[bytes]) -> Written:
        """Store documents and tell what became of each.

        WriteFailed when nothing is certain, WriteRefused when none was taken, maybe because of one of them, or because
        they have more than 16 MiB together.
        """
        if self._in_doubt:
            await self.look()
        try:
            return self._sorted(await self._insert(documents), len(documents))
        except WriteFailed:
            self._in_doubt = True
            raise

    async def look(self) -> None:
        """See that the collections are there and that it is the database that was learned from; WriteFailed."""
        await (self.prepare() if self._guard is None else self._guard.look())
        self._in_doubt = False

    async def _insert(self, documents: Sequence[bytes]) -> Mapping[str, Any]:
        # One command for all of them. They travel back to back, so the driver may take them for a single one:
        # wrapped one by one they cost 0.26 us each, with `insert_many` twice that.
        command: dict[str, Any] = {
            "insert": READINGS,
            "ordered": False,
            "documents": [_Bytes(b"".join(documents))],
            "writeConcern": _SAFE.document,
        }
        uuid = self._form.uuid
        if uuid is not None and self._names_collection:
            command["collectionUUID"] = uuid
        try:
            reply: Mapping[str, Any] = await self._database.command(command)
        except BSONError as error:
            raise WriteRefused(_words(error), OF_THE_DRIVER, certain=True) from error
        except OperationFailure as error:
            self._look_at(error.code, uuid)
            if error.code is None or is_outage(error.code, error.details):
                raise WriteFailed(_words(error)) from error
            raise WriteRefused(_words(error), error.code, certain=error.code in OF_THE_DOCUMENT) from error
        except PyMongoError as error:
            raise WriteFailed(_words(error)) from error
        for item in reply.get("writeErrors", ())[:1]:
            self._look_at(item.get("code"), uuid)
        return reply

    def _look_at(self, code: int | None, uuid: Any) -> None:
        """Raise WriteFailed where the refusal speaks of the collection's name: nothing was stored."""
        if code == COLLECTION_UUID_MISMATCH:
            self._mismatched = uuid
            raise WriteFailed("the collection is not there any more, or is another one")
        if code == UNKNOWN_FIELD and self._names_collection:
            self._names_collection = False
            raise WriteFailed("this server does not know collectionUUID")

    @staticmethod
    def _sorted(reply: Mapping[str, Any], count: int) -> Written:
        written = Written([Outcome.STORED] * count, {})
        if "writeConcernError" in reply:
            raise WriteFailed(f"stored, but not yet safe: {reply['writeConcernError'].get('errmsg', '')}")
        errors = reply.get("writeErrors", ())
        if (seen := reply.get("n", 0) + len(errors)) != count:
            raise WriteFailed(f"{count} documents were sent, and the server tells of {seen}")
        for item in errors:
            index, code, words = item["index"], item.get("code"), str(item.get("errmsg", ""))
            if code == DUPLICATE_KEY:
                written.outcomes[index] = Outcome.DUPLICATE
            elif is_outage(code):
                raise WriteFailed(f"code {code}: {words}")
            else:
                written.errors[index] = words or str(code)
                if code in OF_THE_DOCUMENT:
                    written.outcomes[index] = Outcome.DEAD
                else:
                    written.outcomes[index] = Outcome.RETRY
                    written.doubts[index] = code
        return written

    async def present(self, documents: Sequence[bytes]) -> list[int]:
        """Return which of the documents are stored already, by their place; WriteFailed when nothing is certain."""
        if self._form.clustered:  # there, a question for many keys goes through the whole collection
            return []
        places = {id_bytes(document): place for place, document in enumerate(documents)}
        asked = list(places)
        found: list[int] = []
        try:
            for start in range(0, len(asked), ASKED_AT_ONCE):
                part = [_Bytes(key) for key in asked[start : start + ASKED_AT_ONCE]]
                cursor = self._raw.find({"_id": {"$in": part}}, {"_id": 1}, batch_size=ASKED_AT_ONCE)
                found += [places[id_bytes(document.raw)] async for document in cursor]
        except PyMongoError as error:
            self._in_doubt = True
            raise WriteFailed(_words(error)) from error
        return found

    async def write_series(self, keys: Sequence[dict[str, Any]]) -> None:
        """Note series at their first sight, so that they may be remembered; WriteFailed when nothing is certain."""
        if self._in_doubt:
            await self.look()
        try:
            await self.upsert_series(keys)
            if self._guard is not None:
                await self._guard.mark()
        except WriteFailed:
            self._in_doubt = True
            raise

    async def upsert_series(self, keys: Sequence[dict[str, Any]]) -> None:
        """Write the documents of series; a repetition changes nothing. WriteFailed when nothing is certain."""
        now = datetime.now(UTC)
        updates = [UpdateOne({"_id": key}, {"$setOnInsert": {"firstSeenAt": now}}, upsert=True) for key in keys]
        try:
            await self._series.bulk_write(updates, ordered=False)
        except BulkWriteError as error:
            # Two workers that meet a series at once: the other's document is as good as ours.
            codes = {item.get("code") for item in (error.details or {}).get("writeErrors", ())}
            if codes != {DUPLICATE_KEY} or (error.details or {}).get("writeConcernErrors"):
                raise WriteFailed(_words(error)) from error
        except PyMongoError as error:
            raise WriteFailed(_words(error)) from error

    async def check(self) -> None:
        """Raise when MongoDB does not answer: for `/readyz`."""
        await self._client.admin.command("ping")


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}"
