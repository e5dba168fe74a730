"""Settings of the MongoDB that holds the readings, shared by what writes and what reads them."""

import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from runtime.settings import setting

_SCHEMES = ("mongodb://", "mongodb+srv://")
_USER = re.compile(r"(?:[^:@%]|%[0-9A-Fa-f]{2})*(?::(?:[^:@%]|%[0-9A-Fa-f]{2})*)?")
# A name, an address, or the path of a socket, whose slashes are written %2F.
_HOST = re.compile(r"(?:\[[^\[\]@]+\]|[^:\[\]@]+)(?::([0-9]{1,5}))?")
_LAST_PORT = 65_535
_DATABASE = re.compile(r'[^/\\. "$\0]+')
_DATABASE_BYTES = 63


def readings_database_setting() -> Any:
    """Declare `readings_database`."""
    return setting("tidegate", about="the database that holds the readings")


def check_readings_settings(url: str, database: str) -> None:
    """Raise ValueError, which names the variable, if READINGS_URL or READINGS_DATABASE cannot be used."""
    _check_url(url)
    _check_reads_primary(url)
    _check_database(database)


def _check_url(url: str) -> None:
    """Raise ValueError if READINGS_URL is not one of MongoDB's; it may hold a password and is not repeated."""
    if not url.startswith(_SCHEMES):
        raise ValueError(f"READINGS_URL must start with {' or '.join(_SCHEMES)}")
    scheme, _, rest = url.partition("://")
    user, _, hosts = re.split("[/?]", rest, maxsplit=1)[0].rpartition("@")
    found = [_HOST.fullmatch(host) for host in hosts.split(",")]
    are_hosts = all(host and int(host[1] or 0) <= _LAST_PORT for host in found)
    is_plain = not (set(":,") & set(hosts) and scheme.endswith("+srv"))
    if not (_USER.fullmatch(user) and are_hosts and is_plain):
        raise ValueError(
            "READINGS_URL is not of the form mongodb://user:password@host:port,host:port/?option=value (+srv: one host "
            "and no port); in user and password, : / ? @ and % are written %3A %2F %3F %40 %25"
        )


def _check_database(name: str) -> None:
    """Raise ValueError if READINGS_DATABASE is no name that MongoDB permits."""
    if not (_DATABASE.fullmatch(name) and len(name.encode(errors="replace")) <= _DATABASE_BYTES):
        raise ValueError(f'READINGS_DATABASE={name!r}: must have at most 63 bytes, no space and none of / \\ . " $')


def _check_reads_primary(url: str) -> None:
    """Raise ValueError if READINGS_URL asks for a read preference other than primary.

    Readings move from one collection to the next: whoever reads them in that order from one member misses none. A
    secondary that lags, or another one for the next question, would hide some (docs/decisions/0024).
    """
    for name, value in parse_qsl(urlsplit(url).query.replace(";", "&")):
        if name.lower() == "readpreference" and value.lower() != "primary":
            raise ValueError(f"READINGS_URL has readPreference={value}, but readings are read from the primary only")
