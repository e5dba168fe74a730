"""Aggregation pipelines for MongoDB: time buckets over a range of a series, and the newest readings of many series.

Bucket pipelines scan their key range in order, once. Those for all kinds group twice: equal texts (or booleans) of a
bucket first, to find the most frequent ones.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from runtime.times import rfc3339

Pipeline = list[dict[str, Any]]

TOP_TEXTS = 5
# MongoDB's names for the types of a reading's value.
_TYPES = ["number", "bool", "string"]
_KIND = {
    "$switch": {
        "branches": [
            {"case": {"$isNumber": "$value"}, "then": "number"},
            {"case": {"$eq": [{"$type": "$value"}, "bool"]}, "then": "boolean"},
        ],
        "default": "text",
    }
}


def newest_pipeline(queries: Sequence[dict[str, Any]], collection: str) -> Pipeline:
    """Return the pipeline that finds the newest reading of each query, unordered: one command instead of many."""
    parts: list[Pipeline] = [[{"$match": query}, {"$sort": {"_id": -1}}, {"$limit": 1}] for query in queries]
    first, *others = parts
    unions: Pipeline = [{"$unionWith": {"coll": collection, "pipeline": other}} for other in others]
    return [*first, *unions]


def _bucket_start(every_ms: int) -> dict[str, Any]:
    since_epoch = {"$toLong": "$_id.ts"}
    return {"$subtract": [since_epoch, {"$mod": [since_epoch, every_ms]}]}


def numbers_pipeline(query: dict[str, Any], every_ms: int) -> Pipeline:
    """Return the pipeline that aggregates the numeric readings of a query; `_id` is the bucket's start."""
    return [
        {"$match": {**query, "value": {"$type": "number"}}},
        {"$sort": {"_id": 1}},
        {
            "$group": {
                "_id": _bucket_start(every_ms),
                "min": {"$min": "$value"},
                "max": {"$max": "$value"},
                "avg": {"$avg": "$value"},
                "first": {"$first": "$value"},
                "last": {"$last": "$value"},
                "count": {"$sum": 1},
            }
        },
        {"$sort": {"_id": 1}},
    ]


def kinds_pipeline(query: dict[str, Any], every_ms: int) -> Pipeline:
    """Return the pipeline that aggregates all readings of a query; `_id` is the bucket's start and the kind."""
    first, last = {"firstTs": 1, "firstSeq": 1}, {"lastTs": -1, "lastSeq": -1}
    return [
        {"$match": {**query, "value": {"$type": _TYPES}}},
        {"$sort": {"_id": 1}},
        {
            "$group": {
                "_id": {
                    "at": _bucket_start(every_ms),
                    "kind": _KIND,
                    "value": {"$cond": [{"$isNumber": "$value"}, None, "$value"]},
                },
                "min": {"$min": "$value"},
                "max": {"$max": "$value"},
                "avg": {"$avg": "$value"},
                "first": {"$first": "$value"},
                "last": {"$last": "$value"},
                "count": {"$sum": 1},
                "firstTs": {"$first": "$_id.ts"},
                "firstSeq": {"$first": "$_id.seq"},
                "lastTs": {"$last": "$_id.ts"},
                "lastSeq": {"$last": "$_id.seq"},
            }
        },
        {
            "$group": {
                "_id": {"at": "$_id.at", "kind": "$_id.kind"},
                # Numbers have one group per bucket.
                "min": {"$first": "$min"},
                "max": {"$first": "$max"},
                "avg": {"$first": "$avg"},
                "first": {"$top": {"sortBy": first, "output": "$first"}},
                "last": {"$top": {"sortBy": last, "output": "$last"}},
                "count": {"$sum": "$count"},
                "top": {
                    "$topN": {
                        "n": TOP_TEXTS,
                        "sortBy": {"count": -1, "_id.value": 1},
                        "output": ["$_id.value", "$count"],
                    }
                },
            }
        },
        {"$sort": {"_id.at": 1}},
    ]


def buckets_of_kinds(parts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge the results of `kinds_pipeline`, each of one kind, into buckets."""
    buckets: dict[int, dict[str, Any]] = {}
    for part in parts:
        key = part.pop("_id")
        bucket = buckets.setdefault(key["at"], {"ts": rfc3339(key["at"]), "count": 0})
        bucket["count"] += part["count"]
        name, statistics = _statistics(key["kind"], part)
        bucket[name] = statistics
    return list(buckets.values())


def _statistics(kind: str, part: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    ends = {name: part[name] for name in ("count", "first", "last")}
    if kind == "number":
        return "numbers", {name: part[name] for name in ("min", "max", "avg")} | ends
    if kind == "boolean":
        return "booleans", {"on": sum(count for value, count in part["top"] if value is True)} | ends
    return "texts", ends | {"top": part["top"]}
