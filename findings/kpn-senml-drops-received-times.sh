#!/usr/bin/env bash
# kpn-senml 1.0.1 (PyPI): a received pack loses its times and units, and iterating over it yields nothing.
#
# RFC 8428: a record's time is its own plus the base time, its unit its own or the base unit. from_json and from_cbor read
# names, values and the base value; `bt`, `t`, `bu` and `u` are left out, without an error, so a receiver would store
# every record at the time of its arrival. The pack's own iterator ends before its first record.
#
# Seen: time None and unit None for both records, and an empty list from list(pack), which holds two
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check kpn-senml==1.0.1 cbor2==5.6.5 2>/dev/null
"$folder/venv/bin/python" - <<'P'
import json, sys
from kpn_senml import SenmlPack

received = []
pack = SenmlPack("urn:dev:ow:1", lambda record, device=None: received.append(record))
pack.from_json(
    json.dumps([
        {"bn": "urn:dev:ow:1", "bt": 1719824400, "bu": "Cel", "n": ":in", "v": 21.5},
        {"n": ":out", "t": -60, "u": "K", "v": 294.9},
    ])
)
found = [(one.name, one.value, one.time, one.unit) for one in received]
print(found, list(pack))
sys.exit(found != [(":in", 21.5, None, None), (":out", 294.9, None, None)] or list(pack) != [])
P
