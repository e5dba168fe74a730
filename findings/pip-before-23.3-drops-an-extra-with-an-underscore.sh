#!/usr/bin/env bash
# pip 23.2.1 with python-socketio 5.18.1: `python-socketio[asyncio_client]` installs no client transport.
#
# The package's own documentation names the extra asyncio_client. Its metadata has the normalised name (PEP 685),
# `asyncio-client`. pip before 23.3 compares the two literally, warns that there is no such extra, and succeeds without
# installing aiohttp; the client then fails at its first connect. Debian 12 ships pip 23.0.1, Python
# 3.11.7 brings 23.2.1. With a hyphen, all versions install it.
#
# Seen: pip 23.2.1 asyncio_client -> no aiohttp; asyncio-client -> aiohttp; pip 23.3.2 asyncio_client -> aiohttp
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

installed() { # installed PIP EXTRA: whether aiohttp would be installed
    [ -d "$folder/$1" ] || { python3 -m venv "$folder/$1"; "$folder/$1/bin/pip" install --quiet --disable-pip-version-check "pip==$1"; }
    "$folder/$1/bin/pip" install --dry-run --quiet --report "$folder/report.json" --disable-pip-version-check \
        "python-socketio[$2]==5.18.1" 2>"$folder/warnings" || { cat "$folder/warnings"; return 1; }
    python3 -c 'import json, sys; names = {one["metadata"]["name"].lower() for one in json.load(open(sys.argv[1]))["install"]}
print("aiohttp" if "aiohttp" in names else "no aiohttp")' "$folder/report.json"
}

failed=0
expect() { # expect PIP EXTRA OUTPUT
    seen=$(installed "$1" "$2")
    echo "pip $1, python-socketio[$2]: $seen"
    [ "$seen" = "$3" ] || { echo "expected: $3"; failed=1; }
}
expect 23.2.1 asyncio_client "no aiohttp"
expect 23.2.1 asyncio-client "aiohttp"
expect 23.3.2 asyncio_client "aiohttp"
exit $failed
