"""The owners whose accounts are gone, as this worker knows them: what still comes of theirs is not stored.

Ids are never reused, so an owner once here stays here; some 150 bytes each.
"""

from collections.abc import Iterable

from persister.known_series import KnownSeries
from runtime.logs import logger

log = logger("persister.maintenance.erasure")


class DeletedOwners:
    """A set of owners; the series of a new one are forgotten, so that the hot path looks at their documents again."""

    def __init__(self, known: KnownSeries) -> None:
        self._known = known
        self._owners: set[str] = set()

    def __contains__(self, owner: object) -> bool:
        return owner in self._owners

    def add(self, owners: Iterable[str]) -> None:
        """Note owners as deleted."""
        for owner in owners:
            if owner not in self._owners:
                self._owners.add(owner)
                forgotten = self._known.forget(owner)
                log.info("An owner is deleted; nothing more of theirs is stored.", owner=owner, series=forgotten)

    def replace(self, owners: Iterable[str]) -> None:
        """Know just these: it is another database, and what was learned of the one before does not hold of it."""
        now = set(owners)
        self._owners &= now
        self.add(now)
