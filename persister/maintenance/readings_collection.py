"""The collection `readings`: made with its options, known by its UUID, and put right where an insert has made it.

An insert into a collection that is not there makes one without options. Workers therefore name the UUID of the one that
they mean, and MongoDB refuses what would go elsewhere. A collection that was made by such an insert all the same (by an
older version, by hand) is replaced while it is empty; one that holds readings is left alone, and the log says so.
"""

import secrets
from dataclasses import dataclass
from typing import Any

from bson.binary import Binary
from pymongo import WriteConcern
from pymongo.errors import CollectionInvalid, OperationFailure

from persister.mongodb_errors import COLLECTION_UUID_MISMATCH, NAMESPACE_EXISTS, NAMESPACE_NOT_FOUND
from readings.collections import READINGS
from runtime.logs import logger

log = logger("persister.readings")

# What an empty collection is called while another takes its place; it holds what was written into it meanwhile.
REPLACED = "readings_replaced_"
_ZSTD = "block_compressor=zstd"
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Form:
    """Which collection it is, and whether it is clustered by its key."""

    uuid: Binary | None
    clustered: bool


class ReadingsCollection:
    """Looks after the collection of one database. Raises the driver's errors."""

    def __init__(self, database: Any, *, clustered: bool) -> None:
        self._database = database
        self._clustered = clustered
        self._told: Any = None

    async def prepared(self) -> Form:
        """Return the collection's form, once there is one: made where it is missing, replaced where that is due."""
        for _ in range(_TRIES):
            found = await self._found()
            if found is None:
                await self._create()
            elif not found.get("options") and await self._is_empty() and await self._replaced(found):
                continue
            else:
                await self._bring_back()
                self._tell(found)
                options = found.get("options", {})
                return Form(found.get("info", {}).get("uuid"), bool(options.get("clusteredIndex")))
        raise OperationFailure("the collection is being replaced again and again", COLLECTION_UUID_MISMATCH)

    async def _found(self) -> dict[str, Any] | None:
        cursor = await self._database.list_collections(filter={"name": READINGS})
        return next(iter([one async for one in cursor]), None)

    async def _create(self) -> None:
        options: dict[str, Any] = {"storageEngine": {"wiredTiger": {"configString": _ZSTD}}}
        if self._clustered:
            options["clusteredIndex"] = {"key": {"_id": 1}, "unique": True}
        try:
            await self._database.create_collection(READINGS, **options)
        except CollectionInvalid:
            return  # another worker was first
        except OperationFailure as error:
            if error.code != NAMESPACE_EXISTS:
                raise

    async def _is_empty(self) -> bool:
        return await self._database[READINGS].find_one({}, {"_id": 1}) is None

    async def _replaced(self, found: dict[str, Any]) -> bool:
        """Put a collection with the right options in the place of one that is empty; False where that may not be."""
        database, client = self._database.name, self._database.client
        try:
            if (await client.admin.command("hello")).get("msg") == "isdbgrid":
                return False  # it may be sharded, which is nothing that a worker may undo
            # Not dropped: between the question and the answer a writer may have stored something there.
            await client.admin.command(
                {
                    "renameCollection": f"{database}.{READINGS}",
                    "to": f"{database}.{REPLACED}{secrets.token_hex(8)}",
                    "collectionUUID": found["info"]["uuid"],
                }
            )
        except OperationFailure as error:
            if error.code in (COLLECTION_UUID_MISMATCH, NAMESPACE_NOT_FOUND):
                return True  # another worker was first: look again
            log.warning("The empty collection could not be replaced.", error=str(error))
            return False
        log.warning("The collection of readings had none of its options and was empty; it is made anew.")
        await self._create()
        return True

    async def _bring_back(self) -> None:
        """Take over what is in collections that were replaced (maybe by a worker that died then), and drop them."""
        names = await self._database.list_collection_names(filter={"name": {"$regex": f"^{REPLACED}[0-9a-f]{{16}}$"}})
        for name in names:
            replaced = self._database.get_collection(name, write_concern=WriteConcern(w="majority", j=True))
            into = {"$merge": {"into": READINGS, "whenMatched": "keepExisting"}}
            await replaced.aggregate([into]).to_list(None)
            await replaced.drop()

    def _tell(self, found: dict[str, Any]) -> None:
        options, uuid = found.get("options", {}), found.get("info", {}).get("uuid")
        engine = options.get("storageEngine", {}).get("wiredTiger", {}).get("configString", "")
        is_clustered = bool(options.get("clusteredIndex"))
        if self._told == uuid or (_ZSTD in engine and is_clustered is self._clustered):
            return
        self._told = uuid
        log.warning(
            "The collection of readings has other options than it was to have; it holds readings and stays as it is.",
            zstd=_ZSTD in engine,
            clustered=is_clustered,
            clustered_wanted=self._clustered,
        )
