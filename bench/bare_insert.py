"""`insert_many` and nothing around it: `python -m bench.bare_insert URL DATABASE`, told what to do by JSON lines.

`{"readings": n, "form": "raw"}` inserts documents that are BSON already, `"dicts"` such as the driver has to encode,
4,000 a batch, journaled, into the database's `readings`. The answer has the seconds and the processor time of the
inserts alone. The documents are those that a pipeline stores of events of 100 readings, in a batch each series
together, as a persister writes them.
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
    """Return one of 1,000 series' readings, as a gateway makes them of events of 100, each from another device."""
    ts = start_ms + number // EVENT
    sensor_type = f"temperature-{number % SENSORS}"
    reading = Reading(sensor_type, round(number * 0.618 % 40, 6), ts, number % 1600, ts + 5, unit="celsius")
    return encode_document("owner-0", f"device-{number // EVENT % DEVICES}", reading)


def insert(collection: Any, readings: int, form: str) -> dict[str, float]:
    """Insert that many; return what it took."""
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
    """Do what the lines of standard input say until they end."""
    with MongoClient[dict[str, Any]](url) as client:
        collection = client[database].get_collection("readings", write_concern=WriteConcern("majority", j=True))
        for line in sys.stdin:
            asked = json.loads(line)
            print(json.dumps(insert(collection, asked["readings"], asked["form"])), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
