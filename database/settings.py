"""The setting of the services that use the users' database, declared once."""

from typing import Any

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from runtime.settings import setting

_SCHEMES = ("mysql+aiomysql://", "sqlite+aiosqlite:///")


def database_url_setting() -> Any:
    """Declare `auth_database_url`."""
    return setting(
        about="URL of the users' database: `mysql+aiomysql://USER:PASSWORD@HOST/NAME` or `sqlite+aiosqlite:///PATH`",
        secret=True,
    )


def check_database_url(url: str) -> None:
    """Refuse untested drivers; the URL holds a password, so errors never repeat it."""
    if not url.startswith(_SCHEMES):
        raise ValueError(f"AUTH_DATABASE_URL=(hidden): must begin with {' or '.join(_SCHEMES)}")
    try:
        make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError("AUTH_DATABASE_URL=(hidden): is not a valid URL") from None
