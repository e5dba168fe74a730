"""Names of devices with `*` for any characters, compared in a time that grows with the name only.

Not a regular expression: of one with many stars, that time grows with their number as well, and only one process
evaluates.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NamePattern:
    """A pattern: what is between its stars, the beginning and the end of the name included."""

    parts: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "NamePattern":
        """Return the pattern that a text writes."""
        return cls(tuple(text.split("*")))

    def matches(self, name: str) -> bool:
        """Return whether a whole name has this form."""
        first, *middle = self.parts
        if not middle:
            return name == first
        last = middle.pop()
        at, end = len(first), len(name) - len(last)
        if at > end or not (name.startswith(first) and name.endswith(last)):
            return False
        # The earliest place of each part leaves the most for the next ones.
        for part in middle:
            found = name.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True
