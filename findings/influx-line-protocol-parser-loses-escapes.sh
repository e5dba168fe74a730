#!/usr/bin/env bash
# influx-line-protocol-parser 0.2.0 (npm): escaped names, quoted commas and unsigned integers become nothing.
#
# The format escapes spaces and commas in a measurement and in tags with a backslash, lets a quoted text hold both, and
# has integers with the suffixes i and u. The parser answers each of these valid lines without an error, but with a
# measurement that ends in a placeholder of its own, or with fields that are empty objects. Times in nanoseconds go
# through a double: ...123 comes back as ...000.
#
# Seen: "room#c#" and three empty fields for `room\ 2,bed=no\,rth temp=1.5 <time>`; an empty field for "a, b" and for 7u;
# the timestamp 1719824400000000000 for 1719824400000000123
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund influx-line-protocol-parser@0.2.0 >/dev/null 2>&1
cat > parse.js <<'J'
const parse = require("influx-line-protocol-parser");
const escaped = parse("room\\ 2,bed=no\\,rth temp=1.5 1719824400000000000");
const quoted = parse('m note="a, b" 1719824400000000000');
const unsigned = parse("m count=7u 1719824400000000000");
const nanoseconds = parse("m count=7i 1719824400000000123");
for (const one of [escaped, quoted, unsigned, nanoseconds]) console.log(JSON.stringify(one));
const empty = (fields) => fields.every((field) => JSON.stringify(field) === "{}");
const asSeen =
  escaped.measurement === "room#c#" && empty(escaped.fields) && empty(quoted.fields) && empty(unsigned.fields) &&
  nanoseconds.timestamp === 1719824400000000000;
process.exit(asSeen ? 0 : 1);
J
node parse.js
