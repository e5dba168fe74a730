#!/bin/bash
# Writes a backup of the compose stack to a folder: accounts (a dump while auth works), readings (a copy of MongoDB's
# files, whole at any step of sealing and compaction; only MongoDB stops, and devices stream on into the queue), and .env,
# whose secrets both need.
# Messages in RabbitMQ are on their way to MongoDB and are not part of it. COMPOSE holds more options of docker compose.
set -euo pipefail
root="$(realpath "$(dirname "$0")/../..")"
to="$(realpath -m "${1:-$root/backups/$(date -u +%Y%m%dT%H%M%SZ)}")"
cd "$root"
read -ra options <<<"${COMPOSE:-}"
compose=(docker compose ${options[@]+"${options[@]}"})

[ -f .env ] || { echo "there is no .env here: run this where make up ran" >&2; exit 2; }
if [ -e "$to/mongodb.tar.gz" ]; then echo "$to holds a backup already" >&2; exit 2; fi
umask 077
mkdir -p "$to"
cp .env "$to/env"

echo "accounts ..." >&2
# shellcheck disable=SC2016 # the container's own environment has the password
"${compose[@]}" exec -T mysql sh -c \
    'MYSQL_PWD="$MYSQL_ROOT_PASSWORD" mysqldump --socket=/tmp/mysqld.sock -u root --single-transaction --set-gtid-purged=OFF tidegate' |
    gzip >"$to/accounts.sql.gz.part"

echo "readings; MongoDB is away for as long as the copy takes ..." >&2
trap '"${compose[@]}" up --detach --no-deps --wait mongodb >&2' EXIT
"${compose[@]}" stop mongodb >&2
"${compose[@]}" run --rm --no-deps --no-TTY --entrypoint tar mongodb -C /data/tidegate -cf - . 2>"$to/tar.log" |
    gzip -1 >"$to/mongodb.tar.gz.part" || { cat "$to/tar.log" >&2; exit 1; }
rm "$to/tar.log"
# Only a complete backup gets its final name.
mv "$to/accounts.sql.gz.part" "$to/accounts.sql.gz"
mv "$to/mongodb.tar.gz.part" "$to/mongodb.tar.gz"
du -sh "$to"
