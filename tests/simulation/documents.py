"""How the model of MongoDB compares, finds and changes documents: as much as the product asks for."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import bson
from bson import Int64, MaxKey, MinKey, ObjectId
from bson.codec_options import CodecOptions
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument

from persister.raw_bson import RawBson
from readings.document import AS_MILLISECONDS

Document = dict[str, Any]
Order = tuple[Any, ...]

_EMBEDDED = 3
_ID_AT = 9


def id_of(raw: bytes) -> bytes:
    """Return the bytes of a stored document's `_id`, which is its first element."""
    if raw[4] == _EMBEDDED:
        return raw[_ID_AT : _ID_AT + int.from_bytes(raw[_ID_AT : _ID_AT + 4], "little")]
    return id_bytes_of(bson.decode(raw)["_id"])


def id_bytes_of(value: Any) -> bytes:
    """Return an `_id` as `id_of` does."""
    if isinstance(value, RawBson):
        return value.raw
    return bson.encode(value) if isinstance(value, Mapping) else bson.encode({"": value})


def order_of(value: Any) -> Order:
    """Return a value as something that compares as MongoDB compares: by type, then field by field."""
    if isinstance(value, Mapping):
        return (4, tuple(map(order_of, value.values())))
    for number, (kinds, key) in _ORDER.items():
        if isinstance(value, kinds):
            return (number, key(value))
    raise AssertionError(f"the model cannot compare {value!r}")


_ORDER: dict[int, tuple[Any, Callable[[Any], Any]]] = {
    0: (MinKey, lambda _: 0),
    9: (DatetimeMS, int),
    8: (bool, int),
    3: (str, str.encode),
    2: ((int, float), lambda value: value),
    7: (ObjectId, lambda value: value.binary),
    127: (MaxKey, lambda _: 0),
}


def matches(document: Document, query: Mapping[str, Any]) -> bool:
    """Return whether a document, decoded with AS_MILLISECONDS, is one that a query asks for."""
    return all(_matches(document.get(name), condition) for name, condition in query.items())


def _matches(value: Any, condition: Any) -> bool:
    if not isinstance(condition, Mapping) or not any(name.startswith("$") for name in condition):
        return bool(value == condition)
    return all(_CONDITIONS[name](value, asked) for name, asked in condition.items())


_CONDITIONS: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": lambda value, asked: order_of(value) > order_of(asked),
    "$gte": lambda value, asked: order_of(value) >= order_of(asked),
    "$lt": lambda value, asked: order_of(value) < order_of(asked),
    "$lte": lambda value, asked: order_of(value) <= order_of(asked),
    "$in": lambda value, asked: id_bytes_of(value) in {id_bytes_of(one) for one in asked},
    "$ne": lambda value, asked: bool(value != asked),
    "$type": lambda value, _: isinstance(value, Mapping),
}


def changed(document: Document, change: Mapping[str, Mapping[str, Any]], *, inserted: bool) -> Document:
    """Return a document as an update changes it."""
    for operator, fields in change.items():
        for path, value in fields.items():
            *parents, name = path.split(".")
            inside = document
            for parent in parents:
                inside = inside.setdefault(parent, {})
            if operator == "$set" or (operator == "$setOnInsert" and inserted):
                inside[name] = value
            elif operator == "$unset":
                inside.pop(name, None)
            elif operator == "$max":
                inside[name] = max(inside.get(name, value), value)
            elif operator != "$setOnInsert":
                raise AssertionError(f"the model does not know {operator}")
    return document


def decoded(raw: bytes, options: CodecOptions[Any] | None) -> Any:
    """Return a document as a collection with these options returns it."""
    if options is not None and options.document_class is RawBSONDocument:
        return RawBSONDocument(raw)
    return bson.decode(raw, AS_MILLISECONDS if options is None else options)


def reply_to_find(name: str, documents: Iterable[bytes]) -> RawBSONDocument:
    """Return the reply to a `find` command, whose batch is all there is."""
    batch = [RawBSONDocument(raw) for raw in documents]
    cursor = {"firstBatch": batch, "id": Int64(0), "ns": f"tidegate.{name}"}
    return RawBSONDocument(bson.encode({"cursor": cursor, "ok": 1.0}))
