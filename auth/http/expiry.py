"""The field `expiresAt` of a request: when what it makes is to end."""

from runtime.http.problems import FieldError, Problem
from runtime.times import parse_rfc3339


def expiry_ms(text: str) -> int:
    """Return the time in milliseconds since 1970; Problem 422 for a text that is no time."""
    try:
        return parse_rfc3339(text)
    except ValueError as error:
        raise wrong_expiry(f"This {error}.") from error


def wrong_expiry(message: str) -> Problem:
    """Return the refusal of a time, by its reason."""
    return Problem(422, "The request has the wrong form.", errors=(FieldError("expiresAt", "invalid", message),))
