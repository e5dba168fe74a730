"""The deleted owners that this worker knows of: readings of theirs that still arrive are not stored.

Ids are never reused, so an owner stays in the set; about 150 bytes each.
"""

from collections.abc import Iterable

from persister.known_series import KnownSeries
from runtime.logs import logger

log = logger("persister.maintenance.erasure")


class DeletedOwners:
    """A set of owners. Adding one forgets its series, so that the hot path decodes their documents again."""

    def __init__(self, known: KnownSeries) -> None:
        self._known = known
        self._owners: set[str] = set()

    def __contains__(self, owner: object) -> bool:
        return owner in self._owners

    def add(self, owners: Iterable[str]) -> None:
        """Add owners."""
        for owner in owners:
            if owner not in self._owners:
                self._owners.add(owner)
                forgotten = self._known.forget(owner)
                log.info("An owner is deleted; nothing more of theirs is stored.", owner=owner, series=forgotten)

    def replace(self, owners: Iterable[str]) -> None:
        """Keep only these owners: the others are not deleted in the database that answers now."""
        now = set(owners)
        self._owners &= now
        self.add(now)
