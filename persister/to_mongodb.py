"""PERSISTER → MONGODB: one unordered bulk write a batch; the compound key makes every repetition harmless.

The only file that names the driver (Motor; docs/decisions says until when). Writes are majority and journaled: what
this module calls stored has survived `kill -9` of the server.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import UpdateOne, WriteConcern
from pymongo.errors import BulkWriteError, CollectionInvalid, OperationFailure, PyMongoError

from persister.batch import Outcome

READINGS = "readings"
SERIES = "series"
_SAFE = WriteConcern(w="majority", j=True)

DUPLICATE_KEY = 11000
NAMESPACE_EXISTS = 48
# The server's codes for "this document can never be stored": bad value, parse, type, name, size, validation.
_REFUSED = frozenset({2, 9, 14, 22, 52, 53, 55, 57, 121, 10334, 17280})


class WriteFailed(Exception):
    """MongoDB did not take the batch, or did not say that it is safe: write all of it again."""


class WriteRefused(Exception):
    """MongoDB took nothing of the batch because of what is in it; again would be the same."""


class Written:
    """What became of each document of one write, and the server's words for those it refused."""

    def __init__(self, outcomes: list[Outcome], errors: dict[int, str]) -> None:
        self.outcomes = outcomes
        self.errors = errors


class ToMongoDB:
    """Writes readings and series of one database."""

    def __init__(self, client: Any, database: str, *, clustered: bool) -> None:
        self._client = client
        self._database = client[database]
        self._readings = self._database.get_collection(READINGS, write_concern=_SAFE)
        self._series = self._database.get_collection(SERIES, write_concern=_SAFE)
        self._clustered = clustered

    @classmethod
    @asynccontextmanager
    async def connected(
        cls, url: str, database: str, *, clustered: bool, timeout_s: float
    ) -> AsyncIterator["ToMongoDB"]:
        """Open a client, which connects when it is first used and again after every loss."""
        client: Any = AsyncIOMotorClient(
            url, tz_aware=True, appname="tidegate persister", timeoutMS=int(timeout_s * 1000), connect=False
        )
        try:
            yield cls(client, database, clustered=clustered)
        finally:
            client.close()

    async def prepare(self) -> None:
        """Create the collections where they are missing; WriteFailed while MongoDB is away."""
        options: dict[str, Any] = {"storageEngine": {"wiredTiger": {"configString": "block_compressor=zstd"}}}
        if self._clustered:
            options["clusteredIndex"] = {"key": {"_id": 1}, "unique": True}
        try:
            if READINGS not in await self._database.list_collection_names():
                await self._database.create_collection(READINGS, **options)
        except CollectionInvalid:
            return  # another worker was first
        except OperationFailure as error:
            if error.code != NAMESPACE_EXISTS:
                raise WriteFailed(_words(error)) from error
        except PyMongoError as error:
            raise WriteFailed(_words(error)) from error

    async def write(self, documents: Sequence[bytes]) -> Written:
        """Store documents and tell what became of each.

        WriteFailed when nothing is certain, WriteRefused when one of the documents makes all of them impossible.
        """
        outcomes = [Outcome.STORED] * len(documents)
        errors: dict[int, str] = {}
        try:
            await self._readings.insert_many([RawBSONDocument(document) for document in documents], ordered=False)
        except BulkWriteError as error:
            self._sort(dict(error.details or {}), outcomes, errors)
        except BSONError as error:
            raise WriteRefused(_words(error)) from error
        except OperationFailure as error:
            kind = WriteRefused if error.code in _REFUSED else WriteFailed
            raise kind(_words(error)) from error
        except PyMongoError as error:
            raise WriteFailed(_words(error)) from error
        return Written(outcomes, errors)

    @staticmethod
    def _sort(details: dict[str, Any], outcomes: list[Outcome], errors: dict[int, str]) -> None:
        if details.get("writeConcernErrors"):
            raise WriteFailed(f"stored, but not yet safe: {details['writeConcernErrors'][0].get('errmsg', '')}")
        for item in details.get("writeErrors", ()):
            index, code = item["index"], item.get("code")
            if code == DUPLICATE_KEY:
                outcomes[index] = Outcome.DUPLICATE
            elif code in _REFUSED:
                outcomes[index] = Outcome.DEAD
                errors[index] = str(item.get("errmsg", code))
            else:
                raise WriteFailed(f"code {code}: {item.get('errmsg', '')}")

    async def write_series(self, keys: Sequence[dict[str, Any]]) -> None:
        """Note series at their first sight; a repetition changes nothing. WriteFailed when nothing is certain."""
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
