"""Settings of the MongoDB that holds the readings, shared by what writes and what reads them."""

from typing import Any

from runtime.settings import setting

_SCHEMES = ("mongodb://", "mongodb+srv://")


def readings_database_setting() -> Any:
    """Declare `readings_database`."""
    return setting("tidegate", about="the database that holds the readings")


def check_readings_url(url: str) -> None:
    """Raise ValueError if READINGS_URL is not one of MongoDB's; it may hold a password and is not repeated."""
    if not url.startswith(_SCHEMES):
        raise ValueError(f"READINGS_URL must start with {' or '.join(_SCHEMES)}")
