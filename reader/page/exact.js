// JSON whose integers stay what they are: beyond 2^53, where JavaScript's numbers would round them, they are BigInts.

// Nothing without 16 digits in a row can be that large; most texts end here.
const LARGE = /\d{16}/;
// Strings and numbers whole, so that digits within a string or behind a point are not taken for an integer.
const TOKENS = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
const INTEGER = /^-?\d{16,}$/;
// JSON's strings hold no bare control characters; what a reading's text could hold of them, a gateway refuses.
const MARK = "\u0000integer:";
const MARKED = /^\0integer:(-?\d+)$/;

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
