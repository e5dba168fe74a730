"""The rules of all owners in memory, by what they watch. Follows the database by the numbers of changes."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from access.revocations import RevocationList
from alarms.rules.devices import DeviceNames
from alarms.rules.rule import Rule, Series
from alarms.rules.store import RuleStore
from broker.alarms import Watch, Watches

# A rule that names devices by a pattern finds a new or renamed device within this time.
NAMES_FOR_S = 10.0
# A deleted owner's rows are gone without a change: everything is read again this often.
WHOLE_EVERY_S = 600.0

RuleKey = tuple[str, str]
"""Owner and id of a rule."""


class RuleBook:
    """Every rule, by owner and sensorType."""

    def __init__(self, store: RuleStore, names: DeviceNames, revocations: RevocationList) -> None:
        self._store = store
        self._names = names
        self._revocations = revocations
        self._rules: dict[RuleKey, Rule] = {}
        self._silences: dict[RuleKey, Rule] = {}
        # By owner, sensorType and device; None: rules that are not of devices by id.
        self._watching: defaultdict[tuple[str, str, str | None], dict[str, Rule]] = defaultdict(dict)
        self._found: dict[Series, Sequence[Rule]] = {}
        # Raised with each rule that is new, another one, or gone.
        self.revision = 0
        self._names_revision = 0
        self._number: int | None = None
        # Found out since the last refresh that came to its end.
        self._changed: list[tuple[Rule | None, Rule | None]] = []
        self._whole_at = self._names_at = float("-inf")
        self._lock = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._rules)

    @property
    def knows_deleted(self) -> bool:
        """Whether it is known which devices are deleted."""
        return self._revocations.loaded

    @property
    def devices_revision(self) -> int:
        """Raised when devices have other names, or are deleted."""
        return self._names_revision + self._revocations.deletions

    async def refresh(self) -> list[tuple[Rule, Rule | None]]:
        """Follow the database; return what a rule was and what it is now (None: removed), for each that was known."""
        async with self._lock:
            is_whole, seen = await self._follow(None if time.monotonic() >= self._whole_at else self._number)
            if is_whole:
                self._whole_at = time.monotonic() + WHOLE_EVERY_S
                self._changed += [self._replace(key, None) for key in self._rules.keys() - seen]
            if self._changed or time.monotonic() >= self._names_at:
                await self._refresh_names()
            changed, self._changed = self._changed, []
        return [(before, after) for before, after in changed if before is not None]

    async def _follow(self, after: int | None) -> tuple[bool, set[RuleKey]]:
        """Follow the database from a number on; return whether that was everything, and the rules that were seen."""
        is_whole, seen = False, set[RuleKey]()
        while True:
            changes = await self._store.changes_after(after)
            is_whole = is_whole or changes.is_whole
            for one in changes.rules:
                seen.add((one.owner, one.id))
                self._changed.append(self._replace((one.owner, one.id), one))
            for key in changes.removed:
                seen.discard(key)
                self._changed.append(self._replace(key, None))
            after = changes.number
            if not changes.has_more:
                self._number = after
                return is_whole, seen

    def of_series(self, series: Series) -> Sequence[Rule]:
        """Return the rules that watch a series: none of a deleted device; by name, as known at the last refresh."""
        if self._revocations.is_deleted(series[1]):
            return ()
        found = self._found.get(series)
        if found is None:
            owner, device, sensor_type = series
            of_device = self._watching.get((owner, sensor_type, device), {})
            of_any = self._watching.get((owner, sensor_type, None), {})
            name = self._names.name_of(owner, device) if of_any else ""
            found = (*of_device.values(), *(one for one in of_any.values() if one.watches(device, name)))
            self._found[series] = found
        return found

    def silences(self) -> Mapping[RuleKey, Rule]:
        """Return the rules that watch for silence, by owner and id."""
        return self._silences

    def all(self) -> Collection[Rule]:
        """Return every rule."""
        return self._rules.values()

    async def watches_after(self, cursor: str | None) -> Watches:
        """Return what rules watch, or what has changed of that after a cursor of this list."""
        number = int(cursor) if cursor and cursor.isdecimal() else None
        changes = await self._store.changes_after(number)
        items = [_watch(one) for one in changes.rules]
        items += [Watch(rule, owner, removed=True) for owner, rule in changes.removed]
        return Watches(items, str(changes.number), changes.is_whole, changes.has_more)

    def _replace(self, key: RuleKey, rule: Rule | None) -> tuple[Rule | None, Rule | None]:
        before = self._rules.pop(key, None)
        if before is not None:
            self._silences.pop(key, None)
            for place in _places(before):
                del self._watching[place][before.id]
                if not self._watching[place]:
                    del self._watching[place]
        if rule is not None:
            self._rules[key] = rule
            if rule.is_silence:
                self._silences[key] = rule
            for place in _places(rule):
                self._watching[place][rule.id] = rule
        self.revision += 1
        return before, rule

    async def _refresh_names(self) -> None:
        have_changed = await self._names.refresh({one.owner for one in self._rules.values() if one.named is not None})
        self._names_at = time.monotonic() + NAMES_FOR_S
        self._names_revision += have_changed
        if have_changed or self._changed:
            self._found.clear()


def _places(rule: Rule) -> list[tuple[str, str, str | None]]:
    """Return where a rule is found by the series that it may watch."""
    devices: Iterable[str | None] = (None,) if rule.ids is None else rule.ids
    return [(rule.owner, rule.definition.sensor_type, device) for device in devices]


def _watch(rule: Rule) -> Watch:
    devices = None if rule.ids is None else sorted(rule.ids)
    return Watch(rule.id, rule.owner, rule.definition.sensor_type, devices)
