"""The collection `readings`: created with its options, identified by its UUID, and replaced if it lacks its options.

An insert into a missing collection creates one without options. Workers therefore name the UUID of the collection that
they mean, and MongoDB refuses inserts that would go elsewhere. A collection that was created by an insert all the same
(by an older version, by hand) is replaced while it is empty; one that holds readings is left alone, with a warning in
the log.
"""

import secrets
from dataclasses import dataclass
from typing import Any

from bson.binary import Binary
from pymongo.errors import OperationFailure

from persister.collections import SAFE, ZSTD, ZSTD_CONFIG, create_if_missing
from persister.mongodb_errors import COLLECTION_UUID_MISMATCH, NAMESPACE_NOT_FOUND
from readings.collections import READINGS
from readings.document import AS_MILLISECONDS
from runtime.logs import logger

log = logger("persister.readings")

# The name of an empty collection once it is replaced, with a suffix; it holds what was written into it meanwhile.
REPLACED = "readings_replaced_"
_TRIES = 5


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """The UUID of a collection, and whether it is clustered by its key."""

    uuid: Binary | None
    clustered: bool


async def is_mongos(client: Any) -> bool:
    """Return whether a sharded cluster answers; raises the driver's errors."""
    return bool((await client.admin.command("hello")).get("msg") == "isdbgrid")


class ReadingsCollection:
    """The collection of one database. Every method raises the driver's errors."""

    def __init__(self, database: Any, *, clustered: bool) -> None:
        self._database = database
        self._clustered = clustered
        self._warned_about: Any = None

    async def ensure(self) -> CollectionInfo:
        """Create the collection if it is missing, replace it if that is due, and return what it is."""
        for _ in range(_TRIES):
            found = await self._found()
            if found is None:
                await self.create()
            elif not found.get("options") and await self.is_empty() and await self._replace(found):
                continue
            else:
                await self._merge_replaced()
                self._warn_about_options(found)
                options = found.get("options", {})
                return CollectionInfo(found.get("info", {}).get("uuid"), bool(options.get("clusteredIndex")))
        raise OperationFailure("the collection is being replaced again and again", COLLECTION_UUID_MISMATCH)

    async def _found(self) -> dict[str, Any] | None:
        cursor = await self._database.list_collections(filter={"name": READINGS})
        return next(iter([one async for one in cursor]), None)

    async def create(self) -> None:
        """Create the collection with its options unless it exists."""
        options = dict(ZSTD)
        if self._clustered:
            options["clusteredIndex"] = {"key": {"_id": 1}, "unique": True}
        await create_if_missing(self._database, READINGS, check_exists=False, **options)

    async def is_empty(self) -> bool:
        """Return whether the collection holds nothing, also where the server's count is wrong after a crash."""
        # A date that was written by hand may lie beyond the driver's years.
        readings = self._database.get_collection(READINGS, codec_options=AS_MILLISECONDS)
        return await readings.find_one({}, {"_id": 1}) is None

    async def _replace(self, found: dict[str, Any]) -> bool:
        """Replace an empty collection by one with the right options; False if that is not allowed."""
        database, client = self._database.name, self._database.client
        try:
            if await is_mongos(client):
                return False  # it may be sharded, which a worker must not undo
            # Not dropped: a writer may have stored something there since the collection was found empty.
            await client.admin.command(
                {
                    "renameCollection": f"{database}.{READINGS}",
                    "to": f"{database}.{REPLACED}{secrets.token_hex(8)}",
                    "collectionUUID": found["info"]["uuid"],
                }
            )
        except OperationFailure as error:
            if error.code in (COLLECTION_UUID_MISMATCH, NAMESPACE_NOT_FOUND):
                return True  # another worker was first: start again
            log.warning("The empty collection could not be replaced.", error=str(error))
            return False
        log.warning("The collection of readings was empty and had none of its options; it was replaced.")
        await self.create()
        return True

    async def _merge_replaced(self) -> None:
        """Merge the readings of replaced collections into this one, and drop those collections.

        A worker that died in between leaves this to the next one.
        """
        names = await self._database.list_collection_names(filter={"name": {"$regex": f"^{REPLACED}[0-9a-f]{{16}}$"}})
        for name in names:
            replaced = self._database.get_collection(name, write_concern=SAFE)
            into = {"$merge": {"into": READINGS, "whenMatched": "keepExisting"}}
            await replaced.aggregate([into]).to_list(None)
            await replaced.drop()

    def _warn_about_options(self, found: dict[str, Any]) -> None:
        options, uuid = found.get("options", {}), found.get("info", {}).get("uuid")
        engine = options.get("storageEngine", {}).get("wiredTiger", {}).get("configString", "")
        is_clustered = bool(options.get("clusteredIndex"))
        if self._warned_about == uuid or (ZSTD_CONFIG in engine and is_clustered is self._clustered):
            return
        self._warned_about = uuid
        log.warning(
            "The collection of readings has other options than configured; it holds readings and stays as it is.",
            zstd=ZSTD_CONFIG in engine,
            clustered=is_clustered,
            clustered_wanted=self._clustered,
        )
