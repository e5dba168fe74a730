"""PERSISTER → MONGODB: which readings are stored already, in `readings` or in a sealed collection that waits.

Asked about redelivered readings only, so that a killed worker's are not stored twice. The places are read in the order
in which readings move: `readings`, then the list of sealed collections, then each of them (storage/places). Blocks are
not searched: a repetition of a reading in them is stored, and dropped when it is compacted.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import bson
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import ReadPreference
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from persister.mongodb_errors import WriteFailed, error_text
from persister.raw_bson import RawBson
from readings.collections import READINGS
from readings.document import AS_MILLISECONDS, date_ms, id_bytes
from readings.keys import Key
from storage.places.moving import MOVED
from storage.places.names import BLOCKS, SEALED_PREFIX, sealed_name
from storage.places.state import read_state

KEYS_PER_QUERY = 1000
# A collection that is renamed ends the queries on it. Each further attempt needs one more seal within milliseconds.
TRIES = 5

Query = dict[str, Any]


class StoredReadings:
    """Finds readings in the places of one database that hold them as documents."""

    def __init__(self, database: Any) -> None:
        self._database = database
        # Majority only: a reading that a failover may still roll back does not count as stored.
        self._options = {
            "codec_options": CodecOptions(document_class=RawBSONDocument),
            "read_concern": ReadConcern("majority"),
            "read_preference": ReadPreference.PRIMARY,
        }
        self._blocks = database.get_collection(
            BLOCKS, read_concern=ReadConcern("majority"), read_preference=ReadPreference.PRIMARY
        )

    async def find(self, documents: Sequence[bytes], *, clustered: bool) -> list[int]:
        """Return the indexes of the documents that are stored already; WriteFailed if nothing is certain.

        `clustered`: `readings` is clustered, where a query for many keys scans the whole collection. It is not asked
        then, because a repetition in it ends at its key.
        """
        indexes = {id_bytes(document): index for index, document in enumerate(documents)}
        for left in reversed(range(TRIES)):
            try:
                return [indexes[key] for key in await self._find(indexes.keys(), clustered=clustered)]
            except OperationFailure as error:
                if error.code not in MOVED or not left:
                    raise WriteFailed(error_text(error)) from error
            except PyMongoError as error:
                raise WriteFailed(error_text(error)) from error
        raise AssertionError("unreachable")

    async def _find(self, keys: Iterable[bytes], *, clustered: bool) -> set[bytes]:
        wanted, found = set(keys), set[bytes]()
        # Causally consistent: no later read is of an older time, also after a failover.
        async with await self._database.client.start_session() as session:
            if not clustered:
                found |= await self._find_in(READINGS, _in_parts(wanted), session)
            waiting = (await read_state(self._blocks, session)).waiting
            if waiting and (wanted := wanted - found):
                clustered_names = await self._clustered_names(session)
                for name in map(sealed_name, waiting):
                    queries = _by_series(wanted) if name in clustered_names else _in_parts(wanted)
                    found |= await self._find_in(name, queries, session)
                    wanted -= found
        return found

    async def _find_in(self, name: str, queries: Iterable[Query], session: Any) -> set[bytes]:
        collection = self._database.get_collection(name, **self._options)
        found: set[bytes] = set()
        for query in queries:
            cursor = collection.find({"_id": query}, {"_id": 1}, batch_size=KEYS_PER_QUERY, session=session)
            found |= {id_bytes(document.raw) async for document in cursor}
        return found

    async def _clustered_names(self, session: Any) -> set[str]:
        listed = await self._database.list_collections(
            filter={"name": {"$regex": f"^{re.escape(SEALED_PREFIX)}"}}, session=session
        )
        return {one["name"] async for one in listed if one.get("options", {}).get("clusteredIndex")}


def _in_parts(keys: Iterable[bytes]) -> list[Query]:
    found = [RawBson(key) for key in keys]
    return [{"$in": found[start : start + KEYS_PER_QUERY]} for start in range(0, len(found), KEYS_PER_QUERY)]


def _by_series(keys: Iterable[bytes]) -> list[Query]:
    """Return one query for each series, with bounds: a clustered collection is scanned between them, not whole."""
    decoded = [bson.decode(key, AS_MILLISECONDS) for key in keys]
    ordered = sorted(decoded, key=lambda key: (*_series_of(key), date_ms(key["ts"]), key["seq"]))
    queries: list[Query] = []
    for _, several in groupby(ordered, _series_of):
        group = list(several)
        queries += [
            {"$gte": part[0], "$lte": part[-1], "$in": part}
            for part in (group[start : start + KEYS_PER_QUERY] for start in range(0, len(group), KEYS_PER_QUERY))
        ]
    return queries


def _series_of(key: Key) -> tuple[str, str, str]:
    return key["owner"], key["device"], key["sensorType"]
