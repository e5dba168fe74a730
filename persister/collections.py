"""The names of the collections that only the persister uses, and how a collection is created and dropped."""

from collections.abc import Mapping
from typing import Any

from pymongo import WriteConcern
from pymongo.errors import CollectionInvalid, OperationFailure, WriteConcernError

from persister.mongodb_errors import COLLECTION_UUID_MISMATCH, NAMESPACE_EXISTS, NAMESPACE_NOT_FOUND, UNKNOWN_FIELD

TOMBSTONES = "deleted_owners"
DELETIONS = "deletions"
REQUEUES = "requeues"
DATABASE = "database"
# Stored databases have this collection, so its name cannot change.
JOBS = "chores"

# The options of a collection with zstd instead of snappy, for `create_if_missing`.
ZSTD_CONFIG = "block_compressor=zstd"
ZSTD: dict[str, Any] = {"storageEngine": {"wiredTiger": {"configString": ZSTD_CONFIG}}}

# A confirmed write has survived `kill -9` of the server.
SAFE = WriteConcern(w="majority", j=True)


async def create_if_missing(database: Any, name: str, **options: Any) -> None:
    """Create a collection unless it exists, also if another worker creates it meanwhile. Raises the driver's errors."""
    try:
        await database.create_collection(name, **options)
    except CollectionInvalid:  # it existed when the driver looked
        return
    except OperationFailure as error:
        if error.code != NAMESPACE_EXISTS:  # created between the driver's look and its command
            raise


async def uuid_of(database: Any, name: str, session: Any = None) -> Any:
    """Return the UUID of a collection; None if there is none of that name. Raises the driver's errors."""
    cursor = await database.list_collections(filter={"name": name}, session=session)
    found = [one async for one in cursor]
    return found[0]["info"]["uuid"] if found else None


async def drop_if_same(database: Any, name: str, uuid: Any) -> bool:
    """Drop a collection if it has this UUID; return whether it had. Raises the driver's errors."""
    command: dict[str, Any] = {"drop": name, "writeConcern": SAFE.document}
    try:
        _require_safe(await database.command({**command, "collectionUUID": uuid}))
    except OperationFailure as error:
        if error.code in (NAMESPACE_NOT_FOUND, COLLECTION_UUID_MISMATCH):
            return False
        if error.code != UNKNOWN_FIELD:
            raise
        # A server older than 6.0.
        if await uuid_of(database, name) != uuid:
            return False
        _require_safe(await database.command(command))
    return True


def _require_safe(reply: Mapping[str, Any]) -> None:
    """Raise what the driver raises for its own writes: for a command it leaves this to look at."""
    if error := reply.get("writeConcernError"):
        raise WriteConcernError(error.get("errmsg", "not yet safe"), error.get("code"), dict(error))
