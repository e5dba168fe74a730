#!/usr/bin/env bash
# senml 0.1.0 (PyPI): base fields are taken from the first record only.
#
# RFC 8428, 4.1: a base field applies to its record and the following ones, until a later record replaces it. A gateway
# that sends two devices in one pack replaces the base name between them. This package reads the base name, time, unit
# and value of the first record and ignores all others: the second device's readings resolve to the first one's name.
#
# Seen: urn:dev:a:t three times, with the values 1, 2 and 3
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check senml==0.1.0 2>/dev/null
"$folder/venv/bin/python" - <<'P'
import sys
from senml import SenMLDocument

pack = [
    {"bn": "urn:dev:a:", "bt": 1719824400, "n": "t", "v": 1},
    {"bn": "urn:dev:b:", "bt": 1719828000, "n": "t", "v": 2},
    {"n": "t", "v": 3, "t": 5},
]
document = SenMLDocument.from_json(pack)
resolved = [one.to_absolute(document.base) for one in document.measurements]
found = [(one.name, one.time, one.value) for one in resolved]
print(found)
sys.exit(found != [("urn:dev:a:t", 1719824400, 1), ("urn:dev:a:t", 1719824400, 2), ("urn:dev:a:t", 1719824405, 3)])
P
