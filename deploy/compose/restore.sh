#!/bin/bash
# Fills an empty compose stack from a backup, and leaves it to `make up` to start: .env, accounts, readings.
# It never touches existing data: if volumes hold some, it is up to the operator to run `make down ARGS=--volumes`.
set -euo pipefail
from="$(realpath "${1:?restore.sh FOLDER: a folder that make backup wrote}")"
cd "$(dirname "$0")/../.."
read -ra options <<<"${COMPOSE:-}"
compose=(docker compose ${options[@]+"${options[@]}"})

for part in env accounts.sql.gz mongodb.tar.gz; do
    [ -f "$from/$part" ] || { echo "$from has no $part: this is no whole backup" >&2; exit 2; }
    [ "$part" = env ] || gzip -t "$from/$part"
done
secrets() { grep -E '^(SIGNING_KEY_SECRET|MYSQL_|MONGODB_(KEY|ROOT))' "$1" | sort; }
if [ -e .env ] && [ "$(secrets .env)" != "$(secrets "$from/env")" ]; then
    echo ".env has other secrets than the backup: move it away first" >&2
    exit 2
fi
[ -e .env ] || install -m 600 "$from/env" .env
# Adds settings that this version needs and the backup's did not have.
python3 deploy/compose/env.py
# Only Compose knows the names of the project's volumes; without them we cannot know that they are empty.
volumes="$("${compose[@]}" config --format json | python3 -c 'import json, sys
print(*(one["name"] for name, one in json.load(sys.stdin)["volumes"].items() if name in ("mysql", "mongodb")))')"
[ "$(wc -w <<<"$volumes")" = 2 ] || { echo "docker compose config does not name the volumes" >&2; exit 1; }
for volume in $volumes; do
    if docker volume inspect "$volume" >/dev/null 2>&1; then
        echo "the volume $volume is there: end the stack with make down ARGS=--volumes, which removes what is in it" >&2
        exit 2
    fi
done

echo "readings ..." >&2
"${compose[@]}" build --quiet mongodb >&2
gzip -dc "$from/mongodb.tar.gz" |
    "${compose[@]}" run --rm --no-deps --no-TTY --entrypoint tar mongodb -C /data/tidegate -xf -

echo "accounts ..." >&2
"${compose[@]}" up --detach --wait --wait-timeout 180 mysql >&2
# shellcheck disable=SC2016 # the container's own environment has the password
gzip -dc "$from/accounts.sql.gz" | "${compose[@]}" exec -T mysql sh -c \
    'MYSQL_PWD="$MYSQL_PASSWORD" mysql -h 127.0.0.1 -u tidegate tidegate'
echo "restored from $from; now make up" >&2
