"""Names of registered devices, for rules that choose devices by name; one that is not registered has its id."""

from sqlalchemy import select

from database.connection import Database
from database.tables import devices

OWNERS_AT_ONCE = 200


class DeviceNames:
    """Names by owner and device."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._names: dict[str, dict[str, str]] = {}

    def name_of(self, owner: str, device: str) -> str:
        """Return the name of a device, as it was at the last refresh."""
        return self._names.get(owner, {}).get(device, device)

    def of_owner(self, owner: str) -> dict[str, str]:
        """Return the names of an owner's devices, by id, as they were at the last refresh."""
        return self._names.get(owner, {})

    async def refresh(self, owners: set[str]) -> bool:
        """Read the names of these owners' devices, and forget all others; return whether any is another than before.

        Problem 503 if the database is away.
        """
        found: dict[str, dict[str, str]] = {owner: {} for owner in owners}
        ordered = sorted(owners)
        for start in range(0, len(ordered), OWNERS_AT_ONCE):
            some = ordered[start : start + OWNERS_AT_ONCE]
            query = select(devices.c.owner_id, devices.c.id, devices.c.name).where(devices.c.owner_id.in_(some))
            async with self._database.connect() as connection:
                for owner, device, name in await connection.execute(query):
                    found[owner][device] = name
        before, self._names = self._names, found
        return found != before
