#!/usr/bin/env bash
# kpn-senml 1.0.1 (PyPI): CBOR packs carry the base sum under the label -16.
#
# RFC 8428, 6 (table 4): base sum is -6. The package writes -16, which no other implementation knows, and subtracts the
# base from each sum: a receiver that follows the RFC ignores the label and reads 12.5 where 112.5 was meant. The same
# pack as JSON is right.
#
# Seen: {0: 'energy', 5: 12.5, -2: 'urn:dev:ow:1', -16: 100.0}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check kpn-senml==1.0.1 cbor2==5.6.5 2>/dev/null
"$folder/venv/bin/python" - <<'P'
import json, sys
import cbor2
from kpn_senml import SenmlPack, SenmlRecord

pack = SenmlPack("urn:dev:ow:1")
pack.base_sum = 100.0
record = SenmlRecord("energy")
record.sum = 112.5
pack.add(record)
decoded = cbor2.loads(pack.to_cbor())
print(decoded, pack.to_json())
as_json = json.loads(pack.to_json()) == [{"n": "energy", "s": 12.5, "bn": "urn:dev:ow:1", "bs": 100.0}]
sys.exit(not as_json or decoded != [{0: "energy", 5: 12.5, -2: "urn:dev:ow:1", -16: 100.0}])
P
