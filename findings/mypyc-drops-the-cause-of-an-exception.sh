#!/usr/bin/env bash
# mypyc 2.4.1: `raise … from error` sets no cause, and `raise … from None` hides nothing.
#
# The language reference says that `from` sets `__cause__` and `__suppress_context__` of the exception that is raised. In
# a compiled module the expression behind `from` has no effect: a traceback says that the second exception came "during
# handling" of the first instead of being caused by it, and shows one that should be hidden. Code that looks at
# `__cause__` finds nothing. The same module uncompiled does as the reference says.
#
# Seen: uncompiled "ValueError True / None True", compiled "None False / None False"
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mypy==2.4.1 setuptools==80.9.0 mypy_extensions==1.1.0 \
    types-setuptools==80.9.0.20250822
cd "$folder"
cat >numbers_of.py <<'P'
def with_cause(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise LookupError(text) from error


def without(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise LookupError(text) from None
P
cat >ask.py <<'P'
import numbers_of

seen = []
for convert in (numbers_of.with_cause, numbers_of.without):
    try:
        convert("x")
    except LookupError as error:
        cause = error.__cause__
        seen.append(f"{cause if cause is None else type(cause).__name__} {error.__suppress_context__}")
print(" / ".join(seen))
P
failed=0
expect() { # expect WHAT OUTPUT
    seen=$("$folder/venv/bin/python" ask.py)
    echo "$1: $seen"
    [ "$seen" = "$2" ] || { echo "expected: $2"; failed=1; }
}
expect uncompiled "ValueError True / None True"
PATH="$folder/venv/bin:$PATH" "$folder/venv/bin/mypyc" numbers_of.py >mypyc.log 2>&1 || { cat mypyc.log; exit 1; }
rm numbers_of.py
expect compiled "None False / None False"
exit $failed
