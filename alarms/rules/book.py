"""The rules of all owners in memory, by what they watch. Follows the database by the numbers of changes."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence

from alarms.rules.devices import DeviceNames
from alarms.rules.rule import Rule, Series
from alarms.rules.store import RuleStore
from broker.alarms import Watch, Watches

# A rule that names devices by a pattern finds a new or renamed device within this time.
NAMES_FOR_S = 10.0
# A deleted owner's rows are gone without a change: everything is read again this often.
WHOLE_EVERY_S = 600.0


class RuleBook:
    """Every rule, by owner and sensorType."""

    def __init__(self, store: RuleStore, names: DeviceNames) -> None:
        self._store = store
        self._names = names
        self._rules: dict[tuple[str, str], Rule] = {}
        self._watching: defaultdict[tuple[str, str], dict[str, Rule]] = defaultdict(dict)
        self._found: dict[Series, Sequence[Rule]] = {}
        self._number: int | None = None
        # Found out since the last refresh that came to its end.
        self._changed: list[tuple[Rule | None, Rule | None]] = []
        self._whole_at = self._names_at = float("-inf")
        self._lock = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._rules)

    async def refresh(self) -> list[tuple[Rule, Rule | None]]:
        """Follow the database; return what a rule was and what it is now (None: removed), for each that was known."""
        async with self._lock:
            whole = time.monotonic() >= self._whole_at
            changes = await self._store.changes_after(None if whole else self._number)
            whole = whole or (self._number is not None and changes.number < self._number)
            if whole:
                self._whole_at = time.monotonic() + WHOLE_EVERY_S
            self._number = changes.number
            self._changed += [self._replace((one.owner, one.id), one) for one in changes.rules]
            gone = set(changes.removed)
            if whole:
                gone |= self._rules.keys() - {(one.owner, one.id) for one in changes.rules}
            self._changed += [self._replace(key, None) for key in gone]
            if self._changed or time.monotonic() >= self._names_at:
                await self._refresh_names()
            changed, self._changed = self._changed, []
        return [(before, after) for before, after in changed if before is not None]

    def of_series(self, series: Series) -> Sequence[Rule]:
        """Return the rules that watch a series; of the devices by name, as known at the last refresh."""
        found = self._found.get(series)
        if found is None:
            owner, device, sensor_type = series
            name = self._names.name_of(owner, device)
            watching = self._watching.get((owner, sensor_type), {})
            found = self._found[series] = tuple(one for one in watching.values() if one.watches(device, name))
        return found

    def silences(self) -> list[Rule]:
        """Return the rules that watch for silence."""
        return [one for one in self._rules.values() if one.is_silence]

    async def watches_after(self, cursor: str | None) -> Watches:
        """Return what rules watch, or what has changed of that after a cursor of this list."""
        number = int(cursor) if cursor and cursor.isdecimal() else None
        changes = await self._store.changes_after(number)
        items = [_watch(one) for one in changes.rules]
        items += [Watch(rule, owner, removed=True) for owner, rule in changes.removed]
        return Watches(items, str(changes.number), whole=number is None or number > changes.number)

    def _replace(self, key: tuple[str, str], rule: Rule | None) -> tuple[Rule | None, Rule | None]:
        owner, rule_id = key
        before = self._rules.pop(key, None)
        if before is not None:
            self._watching[owner, before.definition.sensor_type].pop(rule_id, None)
        if rule is not None:
            self._rules[key] = rule
            self._watching[owner, rule.definition.sensor_type][rule_id] = rule
        return before, rule

    async def _refresh_names(self) -> None:
        await self._names.refresh({one.owner for one in self._rules.values() if one.named is not None})
        self._names_at = time.monotonic() + NAMES_FOR_S
        self._found.clear()


def _watch(rule: Rule) -> Watch:
    devices = None if rule.ids is None else sorted(rule.ids)
    return Watch(rule.id, rule.owner, rule.definition.sensor_type, devices)
