"""A model of MongoDB: what a replica set keeps, what it answers, and what becomes of it without a majority.

Real are the commands, the replies and the errors that the product sees; the model has no replica, no journal and no
lock. A write without a majority is on the primary. With `w: majority` its reply waits until the write is kept or rolled
back, or the call's time is over; with less it does not wait. Reads see such a write unless they ask for a majority's.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal
from uuid import UUID

import bson
from bson.binary import Binary
from pymongo.errors import AutoReconnect, NetworkTimeout, OperationFailure, PyMongoError, WriteConcernError

from persister.mongodb_errors import COLLECTION_UUID_MISMATCH, DUPLICATE_KEY, NAMESPACE_EXISTS, NAMESPACE_NOT_FOUND
from readings.collections import READINGS
from readings.document import AS_MILLISECONDS, id_bytes, split_documents
from storage.places.names import BLOCKS, seal_number, sealed_name
from storage.places.state import STATE
from tests.simulation.documents import id_of
from tests.simulation.history import History
from tests.simulation.loop import Process

Refusal = Literal["alone", "all"]
HANGS_FOR_S = 4.0
# Codes that can only mean a document.
NOT_VALID, TOO_LARGE = 121, 10334
RENAMED_BEHIND_DOCUMENT = 0.3
# What a reply says of a write that it waited for in vain.
OUT_OF_TIME = {"code": 50, "errmsg": "operation exceeded time limit"}
STEPPED_DOWN = {"code": 189, "errmsg": "Primary stepped down while waiting for replication"}


@dataclass
class Stored:
    """A collection: its documents by the bytes of their `_id`, in the order of their insertion."""

    uuid: Binary
    documents: dict[bytes, bytes] = field(default_factory=dict)


@dataclass
class Faults:
    """The shares of calls that fail, and how."""

    before: float = 0.0
    after: float = 0.0
    late: float = 0.0
    partial: float = 0.0


class Server:
    """The replica set."""

    def __init__(self, history: History, random: Random) -> None:
        self.history = history
        self.random = random
        self.faults = Faults()
        self.slowest_s = random.choice((0.002, 0.05))
        self.slow_s = 0.0
        self.process = Process("mongodb")
        self.collections: dict[str, Stored] = {}
        self.has_majority = True
        # Without a majority: the names of collections that a majority has.
        self._safe_names: dict[str, Stored] | None = None
        # What a write without a majority has replaced, in the order of the writes.
        self._undo: list[tuple[Stored, bytes, bytes | None]] = []
        # The replies to these writes.
        self._unsafe: list[tuple[asyncio.Future[Any], Any]] = []
        self._uuids = 0
        # Readings that it refuses, by their value: alone, or with all others of the same command.
        self.refused: dict[int, Refusal] = {}
        # Renames the readings, if someone waits for the chance to do it in the middle of an insert.
        self.seals_within_insert: Callable[[], None] | None = None
        # The first document of each identity that a majority had.
        self.first: dict[bytes, bytes] = {}
        self.put(self.created(BLOCKS), bson.encode({"_id": STATE, "highest": 0, "waiting": [], "blocks": False}))

    async def call(self, what: str, serve: Callable[[], Any], *, writes: bool = False) -> Any:
        """Return what `serve` returns at the server; PyMongoError if it is refused, or the network fails.

        `writes`: its reply waits for a majority.
        """
        loop, random, faults = asyncio.get_running_loop(), self.random, self.faults
        reply: asyncio.Future[Any] = loop.create_future()
        drawn = random.random()
        fault = ""
        for name in ("before", "after", "late"):
            drawn -= getattr(faults, name)
            if drawn < 0:
                fault = name
                break
        if fault == "before":
            await asyncio.sleep(self._delay_s())
            self.history.add(f"{what}: no connection")
            raise AutoReconnect("connection refused")

        def at_server() -> None:
            try:
                outcome = serve()
            except PyMongoError as error:
                outcome = error
            if fault == "after":
                self.history.add(f"{what}: done, the reply is lost")
                outcome = AutoReconnect("connection closed")
            elif writes and not self.has_majority and not isinstance(outcome, AutoReconnect):
                self._unsafe.append((reply, outcome))
                loop.call_later(HANGS_FOR_S, _resolve, reply, _not_safe(outcome, OUT_OF_TIME))
                return
            if not reply.done():
                loop.call_later(self._delay_s(), _resolve, reply, outcome)

        delay_s = HANGS_FOR_S * (0.5 + random.random()) if fault == "late" else self._delay_s()
        loop.call_later(delay_s, at_server, context=self.process.context)
        if fault != "late":
            return _raised(await reply)
        await asyncio.sleep(HANGS_FOR_S)
        self.history.add(f"{what}: no answer in time")
        raise NetworkTimeout("timed out")

    def _delay_s(self) -> float:
        return 0.0002 + self.random.random() ** 4 * max(self.slowest_s, self.slow_s)

    def created(self, name: str) -> Stored:
        """Return a new collection."""
        self._uuids += 1
        stored = self.collections[name] = Stored(Binary.from_uuid(UUID(int=self._uuids)))
        return stored

    def create(self, name: str) -> None:
        """Create a collection; OperationFailure if it exists."""
        if name in self.collections:
            raise OperationFailure("exists", NAMESPACE_EXISTS)
        self.created(name)

    def drop(self, name: str) -> None:
        """Drop a collection; OperationFailure if there is none, AutoReconnect without a majority."""
        if not self.has_majority:
            raise AutoReconnect("no majority")
        if self.collections.pop(name, None) is None:
            raise OperationFailure("ns not found", NAMESPACE_NOT_FOUND)

    def rename(self, number: int) -> bool:
        """Seal the readings under this number; return False if there are none.

        Without a majority the primary renames all the same, and may have to take it back.
        """
        stored = self.collections.get(READINGS)
        if stored is None or not stored.documents:
            return False
        self.collections[sealed_name(number)] = self.collections.pop(READINGS)
        return True

    def insert(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Serve an `insert` command of readings, ordered or not."""
        stored = self.collections.get(READINGS) or self.created(READINGS)
        documents = split_documents(command["documents"][0].raw)
        if any(self._refusal(document) == "all" for document in documents):
            raise OperationFailure("object to insert too large", TOO_LARGE)
        is_cut = len(documents) > 1 and self.random.random() < self.faults.partial
        if is_cut:
            documents = documents[: self.random.randrange(1, len(documents))]
        inserted, errors = 0, list[dict[str, Any]]()
        for index, document in enumerate(documents):
            if (error := self._error(stored, command.get("collectionUUID"), document)) is None:
                self.put(stored, document, is_reading=True)
                inserted += 1
                if self.seals_within_insert is not None and self.random.random() < RENAMED_BEHIND_DOCUMENT:
                    self.seals_within_insert()
                continue
            errors.append({"index": index, **error})
            if command["ordered"]:
                break
        self.history.add(f"stores {inserted}, not {len(errors)}", "(cut off)" if is_cut else "")
        if is_cut:
            raise AutoReconnect("the primary stepped down in the middle of the write")
        reply: dict[str, Any] = {"n": inserted, "ok": 1.0}
        if errors:
            reply["writeErrors"] = errors
        return reply

    def _refusal(self, document: bytes) -> str:
        return self.refused.get(bson.decode(document)["value"], "") if self.refused else ""

    def _error(self, stored: Stored, uuid: Any, document: bytes) -> dict[str, Any] | None:
        """Return why one document of an insert is not stored."""
        now = self.collections.get(READINGS)
        if uuid is not None and (now is None or now.uuid != uuid):
            return {"code": COLLECTION_UUID_MISMATCH, "errmsg": "collection UUID mismatch"}
        if self._refusal(document):
            return {"code": NOT_VALID, "errmsg": "Document failed validation"}
        if id_of(document) in stored.documents:
            return {"code": DUPLICATE_KEY, "errmsg": "E11000 duplicate key"}
        return None

    def put(self, stored: Stored, document: bytes, *, is_reading: bool = False) -> None:
        """Write a document, new or not."""
        key = id_of(document)
        if not self.has_majority:
            self._undo.append((stored, key, stored.documents.get(key)))
        elif is_reading:
            self.first.setdefault(key, document)
        stored.documents[key] = document

    def remove(self, stored: Stored, key: bytes) -> None:
        """Remove a document if it is there."""
        if key in stored.documents:
            if not self.has_majority:
                self._undo.append((stored, key, stored.documents[key]))
            del stored.documents[key]

    @property
    def safe_collections(self) -> dict[str, Stored]:
        """The collections by the names that a majority has."""
        return self.collections if self._safe_names is None else self._safe_names

    def majority_view(self, name: str) -> dict[bytes, bytes]:
        """Return the documents of a collection that a majority has."""
        stored = self.safe_collections.get(name)
        if stored is None:
            return {}
        if not self._undo:
            return stored.documents
        view = dict(stored.documents)
        for where, key, before in reversed(self._undo):
            if where is stored:
                if before is None:
                    view.pop(key, None)
                else:
                    view[key] = before
        return view

    def lose_majority(self) -> None:
        """Keep nothing for certain from now on."""
        self.history.add("loses its majority", who="mongodb")
        self.has_majority = False
        self._safe_names = dict(self.collections)

    def regain_majority(self, *, rolls_back: bool) -> None:
        """Keep what was written meanwhile, or roll it back."""
        self.history.add(
            "has a majority again,", "rolled back" if rolls_back else "kept", len(self._undo), who="mongodb"
        )
        undo, self._undo = self._undo, []
        unsafe, self._unsafe = self._unsafe, []
        names, self._safe_names = self._safe_names, None
        self.has_majority = True
        for reply, outcome in unsafe:
            _resolve(reply, _not_safe(outcome, STEPPED_DOWN) if rolls_back else outcome)
        if rolls_back:
            self.collections = names or {}
            for stored, key, before in reversed(undo):
                if before is None:
                    stored.documents.pop(key, None)
                else:
                    stored.documents[key] = before
            return
        of_readings = [one for name, one in self.collections.items() if name == READINGS or seal_number(name)]
        for stored, key, _ in undo:
            if (document := stored.documents.get(key)) is not None and any(one is stored for one in of_readings):
                self.first.setdefault(id_bytes(document), document)

    def state(self) -> dict[str, Any]:
        """Return the state document of sealing and compaction."""
        found = next(raw for raw in self.collections[BLOCKS].documents.values() if b"highest" in raw)
        return bson.decode(found, AS_MILLISECONDS)

    def save_state(self, document: dict[str, Any]) -> None:
        """Replace it."""
        self.put(self.collections[BLOCKS], bson.encode(document))


def _resolve(reply: "asyncio.Future[Any]", outcome: Any) -> None:
    if not reply.done():
        reply.set_result(outcome)


def _not_safe(outcome: Any, error: dict[str, Any]) -> Any:
    """Return what the driver makes of a reply that says, besides, that the write is not safe."""
    if isinstance(outcome, OperationFailure):  # it refused the write; of a duplicate, that is all that the driver says
        return outcome
    if isinstance(outcome, Mapping):
        return {**outcome, "writeConcernError": error}
    return WriteConcernError(error["errmsg"], error["code"], error)


def _raised(outcome: Any) -> Any:
    if isinstance(outcome, PyMongoError):
        raise outcome
    return outcome
