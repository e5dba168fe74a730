"""Bare `insert_many`: `python -m bench.bare_insert URL DATABASE`, controlled by JSON lines on standard input.

`{"readings": n, "form": "raw"}` inserts documents that are already BSON, `"dicts"` ones that the driver has to encode,
4,000 per batch, journaled, into the database's `readings`. The response has the seconds and the CPU time of the inserts
alone. The documents are those that the pipeline stores for events of 100 readings, sorted by series within a batch, as
a persister writes them.
"""

import json
import sys
import time
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, WriteConcern

from readings.document import encode_document, series_bytes
from readings.reading import Reading

BATCH = 4000
DEVICES, SENSORS, EVENT = 20, 50, 100


def document(number: int, start_ms: int) -> bytes:
    """Return a reading of one of 1,000 series, as a gateway encodes them from events of 100 of alternating devices."""
    ts = start_ms + number // EVENT
    sensor_type = f"temperature-{number % SENSORS}"
    reading = Reading(sensor_type, round(number * 0.618 % 40, 6), ts, number % 1600, ts + 5, unit="celsius")
    return encode_document("owner-0", f"device-{number // EVENT % DEVICES}", reading)


def insert(collection: Any, readings: int, form: str) -> dict[str, float]:
    """Insert `readings` documents; return the time and CPU of the inserts."""
    taken = used = 0.0
    start_ms = time.time_ns() // 1_000_000
    for first in range(0, readings, BATCH):
        made = [document(number, start_ms) for number in range(first, min(first + BATCH, readings))]
        made.sort(key=series_bytes)
        batch = [RawBSONDocument(one) if form == "raw" else bson.decode(one) for one in made]
        started, cpu = time.perf_counter(), time.process_time()
        collection.insert_many(batch, ordered=False)
        taken += time.perf_counter() - started
        used += time.process_time() - cpu
    return {"readings": readings, "seconds": taken, "cpuS": used}


def main(url: str, database: str) -> None:
    """Execute the commands of standard input until it ends."""
    with MongoClient[dict[str, Any]](url) as client:
        collection = client[database].get_collection("readings", write_concern=WriteConcern("majority", j=True))
        for line in sys.stdin:
            command = json.loads(line)
            print(json.dumps(insert(collection, command["readings"], command["form"])), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
