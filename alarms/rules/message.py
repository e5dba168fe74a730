"""What a notification says: the owner's text, in which four names between braces are filled in."""

import re
from collections.abc import Mapping

PLACEHOLDERS = ("device", "value", "unit", "ts")
_NAMED = re.compile(r"\{([^{}]*)\}")


def unknown_placeholders(text: str) -> list[str]:
    """Return the names between braces that are no placeholders, in the order in which they occur."""
    return [name for name in _NAMED.findall(text) if name not in PLACEHOLDERS]


def filled_in(text: str, values: Mapping[str, str]) -> str:
    """Return the text with its placeholders filled in. What is filled in is text: its braces name nothing."""
    return _NAMED.sub(lambda found: values.get(found[1], found[0]), text)
