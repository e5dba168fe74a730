"""Time zones of the IANA database, from the package `tzdata`.

The machine's own database is not used, nor MongoDB's: all processes of one version know the same zones and rules.
"""

from functools import cache, lru_cache
from importlib import resources
from zoneinfo import ZoneInfo

_DATABASE = resources.files("tzdata")


class UnknownZone(ValueError):
    """The database has no zone of this name."""


@cache
def zone_names() -> frozenset[str]:
    """Return the names of all zones, older names included."""
    return frozenset((_DATABASE / "zones").read_text().split())


@lru_cache(maxsize=1024)
def time_zone(name: str) -> ZoneInfo:
    """Return the zone of a name, in the database's spelling; raise UnknownZone."""
    if name not in zone_names():
        raise UnknownZone(name)
    with (_DATABASE / "zoneinfo" / name).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)
