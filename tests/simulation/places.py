"""What the model of MongoDB holds, in all places that readings are in: read without the code that is tested."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import bson

from readings.collections import READINGS
from readings.document import AS_MILLISECONDS
from storage.codec.columns import Columns
from storage.codec.decode import decode
from storage.codec.to_documents import documents_of
from storage.places.documents import columns_key, piece_columns, series_name
from storage.places.names import BLOCKS, COLUMNS, PIECES, UNSEALED, seal_number
from tests.simulation.documents import id_bytes_of, id_of
from tests.simulation.mongodb import Server


class Copy(NamedTuple):
    """One copy of a reading: the number of the seal that it came by, where it is, and its document."""

    seal: int
    place: str
    document: bytes


def copies(server: Server) -> dict[bytes, list[Copy]]:
    """Return every copy of each identity that a majority has, by the bytes of its key."""
    found: defaultdict[bytes, list[Copy]] = defaultdict(list)
    for copy in _all(server):
        found[id_of(copy.document)].append(copy)
    return found


def _all(server: Server) -> Iterator[Copy]:
    for name in list(server.safe_collections):
        number = UNSEALED if name == READINGS else seal_number(name)
        if number is not None:
            yield from (Copy(number, name, document) for document in server.majority_view(name).values())
    for raw in server.majority_view(PIECES).values():
        piece = bson.decode(raw, AS_MILLISECONDS)
        yield from _of(piece_columns(piece, series_name(piece["_id"])), "piece")
    columns = server.majority_view(COLUMNS)
    for head in live_heads(server):
        key = id_bytes_of(columns_key(head["_id"], _position(head["_id"]), head["columns"]))
        packed = bytes(bson.decode(columns[key], AS_MILLISECONDS)["data"])
        yield from _of(decode(packed, series_name(head["_id"])), "block")


def _of(columns: Columns, place: str) -> Iterator[Copy]:
    for seal, document in zip(columns.seals.tolist(), documents_of(columns), strict=True):
        yield Copy(seal, place, document)


def live_heads(server: Server) -> list[dict[str, Any]]:
    """Return the heads of blocks that are live: the first of each series, and each that begins where one ends."""
    heads = [bson.decode(raw, AS_MILLISECONDS) for raw in server.majority_view(BLOCKS).values()]
    heads = [head for head in heads if "until" in head]
    heads.sort(key=lambda head: (_series(head), _position(head["_id"])))
    live: list[dict[str, Any]] = []
    for head in heads:
        follows = (
            bool(live) and _series(live[-1]) == _series(head) and _position(live[-1]["until"]) == _position(head["_id"])
        )
        if follows or not head.get("pending"):
            live.append(head)
    return live


def _series(head: dict[str, Any]) -> tuple[str, str, str]:
    return head["_id"]["owner"], head["_id"]["device"], head["_id"]["sensorType"]


def _position(key: dict[str, Any]) -> tuple[int, int]:
    return int(key["ts"]), int(key["seq"])


def stored_positions(server: Server, owner: str, device: str) -> dict[str, set[tuple[int, int]]]:
    """Return what is stored of an owner's device: by sensorType, each (ts, seq)."""
    found: defaultdict[str, set[tuple[int, int]]] = defaultdict(set)
    for identity in copies(server):
        key = bson.decode(identity, AS_MILLISECONDS)
        if (key["owner"], key["device"]) == (owner, device):
            found[key["sensorType"]].add(_position(key))
    return found
