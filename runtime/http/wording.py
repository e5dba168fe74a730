"""msgspec's validation messages in words for people, without regular expressions or names of Python types.

A pattern comes with its own words: `Meta(pattern=…, extra=rule("letters and digits"))`.
"""

import re
from collections.abc import Iterator
from typing import Any

from msgspec import inspect

_RULE = "rule"
_TYPES = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
}
_EXPECTED = re.compile(r"Expected `([a-z |]+)`(?:, got `([a-z]+)`)?")
_LENGTH = re.compile(r"Expected `(\w+)` of length (>=|<=) (\d+)")
_BOUND = re.compile(r"Expected `(?:int|float)` (>=|<=|>|<) (\S+)")
_LENGTHS = {">=": "at least", "<=": "at most"}
_BOUNDS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}


def rule(words: str) -> dict[str, Any]:
    """Return the `extra` of a `Meta` with a pattern: what the pattern requires, to follow "must be"."""
    return {_RULE: words}


def in_words(message: str, kind: Any, *, from_text: bool = False) -> str:
    """Return what is wrong with a value of the type `kind`, to follow its name: "must be at most 9".

    `message` is msgspec's, without the place. `from_text`: all values were text, so "not text" would tell nothing.
    """
    if "matching regex" in message:
        return f"must be {_required_by_pattern(message, kind)}"
    if message.startswith("Invalid enum value"):
        return f"must be one of {', '.join(map(str, _choices(kind)))}"
    if found := _LENGTH.match(message):
        what = "character" if found[1] == "str" else "item"
        return f"must have {_LENGTHS[found[2]]} {found[3]} {what}{'' if found[3] == '1' else 's'}"
    if found := _BOUND.match(message):
        return f"must be {_BOUNDS[found[1]]} {found[2].removesuffix('.0')}"
    if found := _EXPECTED.match(message):
        wanted = " or ".join(dict.fromkeys(_TYPES.get(name, name) for name in found[1].split(" | ")))
        got = found[2] and not from_text
        return f"must be {wanted}" + (f", not {_TYPES.get(found[2], found[2])}" if got else "")
    return f"is not accepted: {message[:1].lower()}{message[1:]}"


def patterns(kind: Any) -> dict[str, str]:
    """Return the words of each pattern in a type, at any depth; empty for a pattern without words."""
    found = {}
    for part, words in _parts(inspect.type_info(kind), ""):
        if isinstance(part, inspect.StrType) and part.pattern is not None:
            found[part.pattern] = words
    return found


def all_parts(kind: Any) -> list[inspect.Type]:
    """Return a type and every type within it."""
    return [part for part, _ in _parts(inspect.type_info(kind), "")]


def _required_by_pattern(message: str, kind: Any) -> str:
    for pattern, words in patterns(kind).items():
        if words and repr(pattern) in message:
            return words
    return "of another form"


def _choices(kind: Any) -> list[Any]:
    return [value for part in all_parts(kind) if isinstance(part, inspect.LiteralType) for value in part.values]


def _parts(kind: inspect.Type, words: str) -> Iterator[tuple[inspect.Type, str]]:
    """Yield every type within a type, with the words given for it. No type contains itself."""
    if isinstance(kind, inspect.Metadata):
        yield from _parts(kind.type, (kind.extra or {}).get(_RULE, words))
        return
    yield kind, words
    for part in parts_of(kind):
        yield from _parts(part, "")


def parts_of(kind: inspect.Type) -> Iterator[inspect.Type]:
    """Yield the types that a type directly contains."""
    match kind:
        case inspect.StructType():
            yield from (field.type for field in kind.fields)
        case inspect.UnionType():
            yield from kind.types
        case inspect.DictType():
            yield from (kind.key_type, kind.value_type)
        case inspect.Metadata():
            yield kind.type
        case inspect.TupleType():
            yield from kind.item_types
        case inspect.CollectionType():
            yield kind.item_type
