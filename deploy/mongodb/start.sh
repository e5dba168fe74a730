#!/bin/bash
# Runs mongod, and creates the replica set and the users if they are missing. /tmp/ready exists once all of it is done.
set -euo pipefail
umask 077
rm -f /tmp/ready
printf '%s' "$MONGODB_KEY" >/tmp/keyfile
mongod --dbpath /data/tidegate --bind_ip_all --replSet rs0 --keyFile /tmp/keyfile --quiet \
    --setParameter diagnosticDataCollectionEnabled=false --setParameter shutdownTimeoutMillisForSignaledShutdown=100 \
    --wiredTigerCacheSizeGB "${MONGODB_CACHE_GB:-0.5}" &
mongod=$!
trap 'kill -TERM "$mongod"' TERM INT
(
    for _ in $(seq 120); do
        if mongosh --quiet --norc admin /usr/local/share/tidegate-mongodb.js; then
            touch /tmp/ready
            exit 0
        fi
        sleep 0.5
    done
    echo "the replica set or its users could not be made" >&2
    kill -TERM "$mongod"
) &
wait "$mongod" || status=$?
# A signal interrupts the first wait before mongod has exited.
wait "$mongod" 2>/dev/null || status=$?
exit "${status:-0}"
