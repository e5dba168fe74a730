"""The names of the collections that only the persister uses, and how a collection is created."""

from typing import Any

from pymongo import WriteConcern
from pymongo.errors import CollectionInvalid, OperationFailure

from persister.mongodb_errors import NAMESPACE_EXISTS

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
