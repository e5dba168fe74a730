"""Settings of the MongoDB that holds the readings, shared by what writes and what reads them."""

from typing import Any
from urllib.parse import parse_qsl, urlsplit

from runtime.settings import setting

_SCHEMES = ("mongodb://", "mongodb+srv://")


def readings_database_setting() -> Any:
    """Declare `readings_database`."""
    return setting("tidegate", about="the database that holds the readings")


def check_readings_url(url: str) -> None:
    """Raise ValueError if READINGS_URL is not one of MongoDB's; it may hold a password and is not repeated."""
    if not url.startswith(_SCHEMES):
        raise ValueError(f"READINGS_URL must start with {' or '.join(_SCHEMES)}")


def check_reads_primary(url: str) -> None:
    """Raise ValueError if READINGS_URL asks for a read preference other than primary.

    Readings move from one collection to the next: whoever reads them in that order from one member misses none. A
    secondary that lags, or another one for the next question, would hide some (docs/decisions/0024).
    """
    for name, value in parse_qsl(urlsplit(url).query.replace(";", "&")):
        if name.lower() == "readpreference" and value.lower() != "primary":
            raise ValueError(f"READINGS_URL has readPreference={value}, but readings are read from the primary only")
