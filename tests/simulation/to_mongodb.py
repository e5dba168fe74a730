"""The driver's side of the model of MongoDB: a client, its databases, collections and cursors."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import bson
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError
from pymongo.read_concern import ReadConcern

from persister.mongodb_errors import DUPLICATE_KEY
from readings.document import AS_MILLISECONDS
from tests.simulation.documents import changed, decoded, id_bytes_of, id_of, matches, order_of, reply_to_find
from tests.simulation.mongodb import Server, Stored

Query = Mapping[str, Any]


class Client:
    """A client of one process."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.admin = SimpleNamespace(command=self._command)

    def __getitem__(self, name: str) -> "Database":
        return Database(self, name)

    async def _command(self, command: str, **_: Any) -> dict[str, Any]:
        assert command in ("hello", "ping")
        reply: dict[str, Any] = await self.server.call(command, lambda: {"ok": 1.0})
        return reply

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[None]:
        yield None

    async def start_session(self, **_: Any) -> Any:
        """Return a session; causal consistency is no question for one server."""
        return self._session()


class Database:
    """A database."""

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = name
        self._server = client.server

    def __getitem__(self, name: str) -> "Collection":
        return Collection(self, name)

    def get_collection(self, name: str, **options: Any) -> "Collection":
        """Return a collection with other options."""
        options.pop("read_preference", None)
        return Collection(self, name, **options)

    async def command(self, command: Mapping[str, Any], **_: Any) -> Any:
        """Run an `insert`, a `find` or a `drop`."""
        if "insert" in command:
            waits = _waits(command.get("writeConcern", {}))
            return await self._server.call("insert", lambda: self._server.insert(command), writes=waits)
        if "drop" in command:
            return await self._server.call("drop", lambda: self._server.drop(command["drop"]))
        name = command["find"]

        def find() -> Any:
            found = _found(_view(self._server, name, command.get("readConcern", {})), command["filter"])
            return reply_to_find(name, [raw for _, raw in sorted(found)][: command["limit"]])

        return await self._server.call("find", find)

    async def create_collection(self, name: str, **_: Any) -> None:
        """Create a collection."""
        await self._server.call(f"create {name}", lambda: self._server.create(name))

    async def list_collections(self, **options: Any) -> Any:
        """Return the collections whose names a filter asks for, each with its UUID and some options."""
        asked = options["filter"]["name"]

        def listed() -> list[dict[str, Any]]:
            pattern = asked["$regex"].replace("\\", "") if isinstance(asked, Mapping) else ""
            return [
                {"name": name, "options": {"storageEngine": {}}, "info": {"uuid": stored.uuid}}
                for name, stored in self._server.collections.items()
                if name == asked or (pattern and name.startswith(pattern.removeprefix("^").split("[")[0]))
            ]

        return _Cursor.of(await self._server.call("list collections", listed))

    async def list_collection_names(self, **options: Any) -> list[str]:
        """Return their names."""
        return [one["name"] async for one in await self.list_collections(**options)]


class _Cursor:
    def __init__(self, ask: Callable[[int, int], Any]) -> None:
        self._ask = ask
        self._direction, self._limit = 0, 0

    @classmethod
    def of(cls, documents: list[Any]) -> "_Cursor":
        async def ask(_: int, __: int) -> list[Any]:
            return documents

        return cls(ask)

    def sort(self, field: str, direction: int) -> "_Cursor":
        """Order by `_id`."""
        assert field == "_id"
        self._direction = direction
        return self

    def limit(self, most: int) -> "_Cursor":
        """Return at most so many."""
        self._limit = most
        return self

    async def to_list(self, most: int | None) -> list[Any]:
        """Return the documents."""
        found: list[Any] = await self._ask(self._direction, self._limit)
        return found[:most]

    async def __aiter__(self) -> AsyncIterator[Any]:
        for one in await self.to_list(None):
            yield one


class Collection:
    """A collection, as the driver has it: its calls fail as those of the driver fail."""

    def __init__(
        self,
        database: Database,
        name: str,
        codec_options: Any = None,
        read_concern: Any = None,
        write_concern: Any = None,
    ) -> None:
        self.database = database
        self.name = name
        self.read_concern = read_concern or ReadConcern()
        self._waits = write_concern is None or _waits(write_concern.document)
        self._options = codec_options
        self._server = database.client.server

    def _stored(self) -> Stored:
        return self._server.collections.get(self.name) or self._server.created(self.name)

    async def _write(self, what: str, change: Callable[[Stored], Any]) -> Any:
        return await self._server.call(f"{what} {self.name}", lambda: change(self._stored()), writes=self._waits)

    async def _write_several(self, what: str, change: Callable[[Stored], list[dict[str, Any]]]) -> None:
        """Make a change that returns the errors of documents; BulkWriteError for these, and without a majority."""

        def serve(stored: Stored) -> dict[str, Any]:
            return {"writeErrors": change(stored)}

        reply: dict[str, Any] = await self._write(what, serve)
        unsafe = [reply["writeConcernError"]] if "writeConcernError" in reply else []
        if reply["writeErrors"] or unsafe:
            raise BulkWriteError({"writeErrors": reply["writeErrors"], "writeConcernErrors": unsafe})

    def find(self, query: Query, projection: Any = None, **_: Any) -> _Cursor:
        """Return what the query asks for, whole, as this collection's read concern sees it."""
        del projection

        async def ask(direction: int, limit: int) -> list[Any]:
            def serve() -> list[bytes]:
                found = _found(_view(self._server, self.name, self.read_concern.document), query)
                if direction:
                    found.sort(reverse=direction < 0)
                return [raw for _, raw in found][: limit or None]

            rows: list[bytes] = await self._server.call(f"find {self.name}", serve)
            return [decoded(raw, self._options) for raw in rows]

        return _Cursor(ask)

    async def find_one(self, query: Query, *_: Any, **__: Any) -> Any:
        """Return one document."""
        found = await self.find(query).sort("_id", 1).to_list(1)
        return found[0] if found else None

    async def create_index(self, *_: Any, **__: Any) -> None:
        """Create no index, but answer."""
        await self._write("index", lambda _: None)

    async def insert_one(self, document: dict[str, Any]) -> None:
        """Insert a document; DuplicateKeyError."""

        def insert(stored: Stored) -> None:
            raw = bson.encode(document)
            if id_of(raw) in stored.documents:
                raise DuplicateKeyError("E11000", DUPLICATE_KEY)
            self._server.put(stored, raw)

        await self._write("insert", insert)

    async def insert_many(self, documents: Sequence[dict[str, Any]], *, ordered: bool) -> None:
        """Insert documents, unordered; BulkWriteError."""
        assert not ordered

        def insert(stored: Stored) -> list[dict[str, Any]]:
            errors: list[dict[str, Any]] = []
            for index, raw in enumerate(map(bson.encode, documents)):
                if id_of(raw) in stored.documents:
                    errors.append({"index": index, "code": DUPLICATE_KEY})
                else:
                    self._server.put(stored, raw)
            return errors

        await self._write_several("insert", insert)

    async def replace_one(self, query: Query, document: dict[str, Any]) -> Any:
        """Replace the document that the query finds."""
        return await self._change(query, lambda _: document)

    async def update_one(self, query: Query, change: Mapping[str, Any]) -> Any:
        """Change the document that the query finds."""
        return await self._change(query, lambda found: changed(found, change, inserted=False))

    async def _change(self, query: Query, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
        def serve(stored: Stored) -> Any:
            found = _found(stored.documents, query)
            for _, raw in found[:1]:
                self._server.put(stored, bson.encode(change(bson.decode(raw, AS_MILLISECONDS))))
            return SimpleNamespace(matched_count=len(found[:1]))

        return await self._write("update", serve)

    async def delete_one(self, query: Query) -> None:
        """Delete the document that the query finds."""
        await self.delete_many(query, most=1)

    async def delete_many(self, query: Query, *, most: int | None = None) -> None:
        """Delete the documents that the query finds."""

        def delete(stored: Stored) -> None:
            for _, raw in _found(stored.documents, query)[:most]:
                self._server.remove(stored, id_of(raw))

        await self._write("delete", delete)

    async def bulk_write(self, updates: Sequence[UpdateOne], *, ordered: bool) -> None:
        """Change documents, each found by its `_id`, or insert them."""
        assert not ordered

        def write(stored: Stored) -> list[dict[str, Any]]:
            for update in updates:
                query: Any = update._filter
                raw = stored.documents.get(id_bytes_of(query["_id"]))
                document = {"_id": query["_id"]} if raw is None else bson.decode(raw, AS_MILLISECONDS)
                if (raw is None and update._upsert) or (raw is not None and matches(document, query)):
                    change: Any = update._doc
                    self._server.put(stored, bson.encode(changed(document, change, inserted=raw is None)))
            return []

        await self._write_several("update", write)


def _waits(concern: Mapping[str, Any]) -> bool:
    """Return whether a reply waits for a majority: MongoDB's default since 5.0."""
    return bool(concern.get("w", "majority") == "majority")


def _view(server: Server, name: str, concern: Mapping[str, Any]) -> Mapping[bytes, bytes]:
    """Return the documents that a read sees: unless it asks for a majority's, also what may yet be rolled back."""
    if concern.get("level") == "majority":
        return server.majority_view(name)
    stored = server.collections.get(name)
    return {} if stored is None else stored.documents


def _found(documents: Mapping[bytes, bytes], query: Query) -> list[tuple[Any, bytes]]:
    """Return what a query finds, each with what orders it."""
    wanted = query.get("_id")
    if isinstance(wanted, Mapping) and set(wanted) == {"$in"} and len(query) == 1:
        keys = map(id_bytes_of, wanted["$in"])
        return [(key, documents[key]) for key in keys if key in documents]
    found = []
    for raw in documents.values():
        document = bson.decode(raw, AS_MILLISECONDS)
        if matches(document, query):
            found.append((order_of(document["_id"]), raw))
    return found
