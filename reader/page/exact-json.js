// JSON that keeps integers exact: beyond 2^53, where numbers would be rounded, they are BigInts.

// An integer that large has 16 digits in a row; most texts have none.
const LARGE = /\d{16}/;
// Matches whole strings and numbers, so that digits in a string or a fraction are not taken for an integer.
const TOKENS = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
const INTEGER = /^-?\d{16,}$/;
// JSON strings contain no raw control characters, and gateways reject escaped ones in readings.
const MARK = "\u0000integer:";
const MARKED = /^\0integer:(-?\d+)$/;
const WRITTEN = /"\\u0000integer:(-?\d+)"/g;

export function parse(text) {
  if (!LARGE.test(text)) return JSON.parse(text);
  const marked = text.replace(TOKENS, (token) =>
    INTEGER.test(token) && !Number.isSafeInteger(Number(token)) ? JSON.stringify(MARK + token) : token,
  );
  return JSON.parse(marked, (_, value) => {
    const found = typeof value === "string" && MARKED.exec(value);
    return found ? BigInt(found[1]) : value;
  });
}

export function stringify(value) {
  const marked = JSON.stringify(value, (_, one) => (typeof one === "bigint" ? MARK + one : one));
  return marked.replace(WRITTEN, "$1");
}
