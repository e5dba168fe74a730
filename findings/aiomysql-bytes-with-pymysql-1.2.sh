#!/usr/bin/env bash
# aiomysql 0.3.2 with PyMySQL 1.2.4: a query with a bytes parameter cannot be sent.
#
# aiomysql 0.3.2 escapes bytes by calling `escape_bytes_prefixed`, a name that it imports from PyMySQL. PyMySQL 1.2 made
# that name a string, and aiomysql sets no upper bound on PyMySQL's version, so a fresh installation combines the
# two. The same call with PyMySQL 1.1.3 gives a binary literal. No server is needed to reproduce it.
#
# Seen: PyMySQL 1.1.3 -> "_binary'abc'"; PyMySQL 1.2.4 -> TypeError: 'str' object is not callable
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"

escaped() { # escaped VERSION: how aiomysql escapes three bytes with that version of PyMySQL
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check aiomysql==0.3.2 "PyMySQL==$1"
    "$folder/venv/bin/python" - <<'P'
import asyncio
from aiomysql.connection import Connection

async def main() -> None:
    try:
        print(Connection().escape(b"abc"))
    except TypeError as error:
        print(f"TypeError: {error}")

asyncio.run(main())
P
}

failed=0
expect() { # expect VERSION OUTPUT
    seen=$(escaped "$1" 2>/dev/null)
    echo "PyMySQL $1: $seen"
    [ "$seen" = "$2" ] || { echo "expected: $2"; failed=1; }
}
expect 1.1.3 "_binary'abc'"
expect 1.2.4 "TypeError: 'str' object is not callable"
exit $failed
