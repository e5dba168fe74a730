#!/usr/bin/env bash
# openapi-python-client: an array of fixed length, as OpenAPI 3.1 describes it, makes the whole document unreadable.
#
# A position in a series is [ts, seq]: JSON Schema 2020-12, and so OpenAPI 3.1, describe such a pair with `prefixItems`
# and `items: false`, and msgspec writes exactly that for a tuple. The generator's model of a schema allows an object
# there only: it ends with "Failed to parse OpenAPI document" and creates nothing, not even the other operations. A
# service whose clients are generated describes a pair as an array of one type with minItems and maxItems.
#
# Seen with openapi-python-client 0.29.1, Python 3.11: exit code 1 for `items: false`, 0 with `items` left out.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check openapi-python-client==0.29.1
document() {
    cat <<J
{"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {"/stored": {"get": {"responses": {"200": {
  "description": "positions", "content": {"application/json": {"schema": {"\$ref": "#/components/schemas/Stored"}}}}}}}},
 "components": {"schemas": {"Stored": {"type": "object", "properties": {"position": {"type": "array", "minItems": 2,
  "maxItems": 2, "prefixItems": [{"type": "integer"}, {"type": "integer"}]$1}}}}}}
J
}
for form in '' ', "items": false'; do
    document "$form" >openapi.json
    code=0
    PATH="$folder/venv/bin:$PATH" venv/bin/openapi-python-client generate --meta none --overwrite --path openapi.json \
        --output-path client >out.txt 2>&1 || code=$?
    echo "with '$form': exit code $code, $(grep -c 'Failed to parse OpenAPI document' out.txt || true) times unreadable"
done | tee seen.txt
diff seen.txt - <<'S'
with '': exit code 0, 0 times unreadable
with ', "items": false': exit code 1, 1 times unreadable
S
