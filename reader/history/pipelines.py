"""Aggregation pipelines for MongoDB: time buckets over a range of a series, and the newest readings of many series.

Bucket pipelines scan their key range in order, once. `kinds_pipeline` groups twice: equal texts (or booleans) of a
bucket first, to find the most frequent ones.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

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
_STATISTICS = {
    "min": {"$min": "$value"},
    "max": {"$max": "$value"},
    "avg": {"$avg": "$value"},
    "first": {"$first": "$value"},
    "last": {"$last": "$value"},
    "count": {"$sum": 1},
}
_ON = {"$sum": {"$cond": [{"$eq": ["$value", True]}, 1, 0]}}


def newest_pipeline(queries: Sequence[dict[str, Any]], collection: str) -> Pipeline:
    """Return the pipeline that finds the newest reading of each query, unordered: one command instead of many."""
    parts: list[Pipeline] = [[{"$match": query}, {"$sort": {"_id": -1}}, {"$limit": 1}] for query in queries]
    first, *others = parts
    unions: Pipeline = [{"$unionWith": {"coll": collection, "pipeline": other}} for other in others]
    return [*first, *unions]


def bucket_start(boundaries: Sequence[int]) -> Any:
    """Return the expression for the start of a reading's bucket, in milliseconds since 1970.

    Neighbours of the same width are a run, within which the start is computed; the run is found by halves. A year of
    days has five runs where the clocks change twice; most months are runs of their own.
    """
    runs = _runs(boundaries)
    if len(boundaries) == 2:
        return {"$literal": boundaries[0]}
    if len(runs) == 1:
        return _start_in(runs[0], {"$toLong": "$_id.ts"})
    return {"$let": {"vars": {"ts": {"$toLong": "$_id.ts"}}, "in": _start_in_one_of(runs)}}


def _runs(boundaries: Sequence[int]) -> list[range]:
    """Return the starts of the buckets, those of one width in one range."""
    if isinstance(boundaries, range):
        return [boundaries[:-1]]
    runs: list[range] = []
    for start, end in pairwise(boundaries):
        width = end - start
        if runs and runs[-1].step == width:
            runs[-1] = range(runs[-1].start, end, width)
        else:
            runs.append(range(start, end, width))
    return runs


def _start_in_one_of(runs: list[range]) -> Any:
    if len(runs) == 1:
        return _start_in(runs[0], "$$ts")
    middle = len(runs) // 2
    halves = [_start_in_one_of(runs[:middle]), _start_in_one_of(runs[middle:])]
    return {"$cond": [{"$lt": ["$$ts", runs[middle].start]}, *halves]}


def _start_in(run: range, ts: Any) -> Any:
    """Return the expression for the start of a bucket in a run. No step of it leaves 64 bits, whatever the run."""
    if len(run) == 1:
        return run.start
    first, width = run.start, run.step
    since = {"$mod": [ts, width]}
    if first < 0 or first % width:  # `$mod` of a negative number is above -width
        since = {"$mod": [{"$add": [since, 2 * width - first % width]}, width]}
    return {"$subtract": [ts, since]}


def numbers_pipeline(query: dict[str, Any], boundaries: Sequence[int]) -> Pipeline:
    """Return the pipeline that aggregates the numeric readings of a query; `_id` is the bucket's start."""
    return [
        {"$match": {**query, "value": {"$type": "number"}}},
        {"$sort": {"_id": 1}},
        {"$group": {"_id": bucket_start(boundaries), **_STATISTICS}},
        {"$sort": {"_id": 1}},
    ]


def summary_pipeline(query: dict[str, Any], boundaries: Sequence[int]) -> Pipeline:
    """Return the pipeline that aggregates all readings of a query; `_id` is the bucket's start and the kind."""
    return [
        {"$match": {**query, "value": {"$type": _TYPES}}},
        {"$sort": {"_id": 1}},
        {"$group": {"_id": {"at": bucket_start(boundaries), "kind": _KIND}, **_STATISTICS, "on": _ON}},
        {"$sort": {"_id.at": 1}},
    ]


def kinds_pipeline(query: dict[str, Any], boundaries: Sequence[int]) -> Pipeline:
    """Return the pipeline of `summary_pipeline` with the most frequent texts, `top`."""
    first, last = {"firstTs": 1, "firstSeq": 1}, {"lastTs": -1, "lastSeq": -1}
    return [
        {"$match": {**query, "value": {"$type": _TYPES}}},
        {"$sort": {"_id": 1}},
        {
            "$group": {
                "_id": {
                    "at": bucket_start(boundaries),
                    "kind": _KIND,
                    "value": {"$cond": [{"$isNumber": "$value"}, None, "$value"]},
                },
                **_STATISTICS,
                "on": _ON,
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
                "on": {"$sum": "$on"},
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
