"""From the statistics of each kind of value in a bucket, the parts of `BucketSums`, to the buckets of a response.

Booleans are 0 and 1 in one place only, `_as_numbers`: the mean of a bucket of booleans is the share that was on.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from reader.history.bucket_sums import TOP_TEXTS, BucketSums
from runtime.times import rfc3339

Part = dict[str, Any]
Bucket = dict[str, Any]
NUMBERS = ("min", "max", "avg", "first", "last", "count")


@dataclass(frozen=True, slots=True)
class Aggregation:
    """What buckets say: how they are computed, how their parts become a response, and how many there may be."""

    sums: Callable[[Sequence[int]], BucketSums]
    buckets: Callable[[Iterable[Part]], list[Bucket]]
    max_buckets: int
    # A bucket may hold this many texts of 256 characters.
    texts: int


def number_buckets(parts: Iterable[Part]) -> list[Bucket]:
    """Return the buckets of numbers alone."""
    return [{"ts": rfc3339(part.pop("_id")), **part} for part in parts]


def summary_buckets(parts: Iterable[Part]) -> list[Bucket]:
    """Return the buckets of all readings: min, max, avg, first, last and count are those of the numbers.

    In a bucket without numbers they are those of its booleans, true as 1 and false as 0. A bucket of texts alone has
    a count of 0 and none of the others. Booleans and texts have statistics of their own in each bucket that has some.
    """
    return [_summary(at, kinds) for at, kinds in _by_bucket(parts)]


def kind_buckets(parts: Iterable[Part]) -> list[Bucket]:
    """Return the buckets by kind: the count of all readings, and the statistics of each kind."""
    return [
        {"ts": rfc3339(at), "count": sum(part["count"] for part in kinds.values())}
        | {f"{kind}s": statistics(kinds[kind]) for kind, statistics in _STATISTICS.items() if kind in kinds}
        for at, kinds in _by_bucket(parts)
    ]


def _by_bucket(parts: Iterable[Part]) -> Iterable[tuple[int, dict[str, Part]]]:
    """Return the start of each bucket and its parts by kind."""
    buckets: dict[int, dict[str, Part]] = {}
    for part in parts:
        key = part["_id"]
        buckets.setdefault(key["at"], {})[key["kind"]] = part
    return buckets.items()


def _summary(at: int, kinds: dict[str, Part]) -> Bucket:
    numbers, booleans, texts = (kinds.get(kind) for kind in ("number", "boolean", "text"))
    bucket: Bucket = {"ts": rfc3339(at)}
    if numbers:
        bucket |= {name: numbers[name] for name in NUMBERS}
    elif booleans:
        bucket |= _as_numbers(booleans)
    else:
        bucket["count"] = 0
    if booleans:
        bucket["booleans"] = _booleans(booleans)
    if texts:
        bucket["texts"] = _texts(texts)
    return bucket


def _as_numbers(booleans: Part) -> Bucket:
    on, count = booleans["on"], booleans["count"]
    ends = {"first": int(booleans["first"]), "last": int(booleans["last"]), "count": count}
    return {"min": int(on == count), "max": int(on > 0), "avg": on / count} | ends


def _numbers(part: Part) -> Bucket:
    return {name: part[name] for name in ("min", "max", "avg", "count", "first", "last")}


def _booleans(part: Part) -> Bucket:
    return {name: part[name] for name in ("on", "count", "first", "last")}


def _texts(part: Part) -> Bucket:
    return {name: part[name] for name in ("count", "first", "last", "top") if name in part}


_STATISTICS = {"number": _numbers, "boolean": _booleans, "text": _texts}

SUMMARY = Aggregation(BucketSums, summary_buckets, max_buckets=10_000, texts=2)
NUMBERS_ALONE = Aggregation(partial(BucketSums, numbers_alone=True), number_buckets, max_buckets=10_000, texts=0)
KINDS = Aggregation(partial(BucketSums, top=True), kind_buckets, max_buckets=5000, texts=2 + TOP_TEXTS)
