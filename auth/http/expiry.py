"""The field `expiresAt` of a request: when what it makes is to end."""

from typing import Annotated

from msgspec import Meta

from runtime.http.problems import FieldError, Problem
from runtime.times import CALENDAR_MS, parse_rfc3339

Expiry = (
    Annotated[str, Meta(max_length=64, examples=["2027-01-31T12:00:00Z"])]
    | Annotated[int, Meta(ge=0, le=CALENDAR_MS[-1])]
)
"""RFC 3339 with a zone, or milliseconds since 1970."""


def expiry_ms(given: str | int) -> int:
    """Return the time in milliseconds since 1970; Problem 422 for a text that is no time."""
    if isinstance(given, int):
        return given
    try:
        return parse_rfc3339(given)
    except ValueError as error:
        raise wrong_expiry(f"This {error}.") from error


def wrong_expiry(message: str) -> Problem:
    """Return the refusal of a time, by its reason."""
    return Problem(422, "The request has the wrong form.", errors=(FieldError("expiresAt", "invalid", message),))
