"""Silences: series of which nothing has come for as long as their rule says, noticed by the time that has passed.

What counts is when a gateway received the last reading, not what the device's clock says.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping

from alarms.evaluation.evaluator import Change, Evaluator
from alarms.rules.rule import Rule, Series

Watched = tuple[int, str, str, str]
"""When it is due in ms since 1970, owner, rule, device."""


class Silences:
    """The times at which silences are due; a heap, in which a time that has become later is put back."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._rules: dict[tuple[str, str], Rule] = {}
        self._due: list[Watched] = []
        self._watched: set[tuple[str, str, str]] = set()

    def __len__(self) -> int:
        return len(self._watched)

    def watch_rules(self, rules: Mapping[tuple[str, str], Rule]) -> bool:
        """Watch by these rules from now on, by owner and id, and no others; return whether to see known series again.

        That is where a rule is new, or watches something else than before.
        """
        before, self._rules = self._rules, dict(rules)
        kept = {key for key, one in self._rules.items() if key in before and before[key].version == one.version}
        if len(kept) < len(before):
            self._due = [one for one in self._due if one[1:3] in kept]
            heapq.heapify(self._due)
            self._watched = {one for one in self._watched if one[:2] in kept}
        new = self._rules.keys() - kept
        for key in new:
            for device in self._rules[key].ids or ():
                self._watch(self._rules[key], device)
        return bool(new)

    def seen(self, series: Series, rules: Iterable[Rule]) -> None:
        """Watch a series of which a reading has come."""
        for rule in rules:
            if rule.is_silence:
                self._watch(rule, series[1])

    def due(self, now_ms: int) -> Iterator[Change]:
        """Yield the silences that count now."""
        while self._due and self._due[0][0] <= now_ms:
            _, owner, rule_id, device = heapq.heappop(self._due)
            self._watched.discard((owner, rule_id, device))
            rule = self._rules.get((owner, rule_id))
            if rule is None:
                continue
            due_ms = self._due_ms(rule, device)
            if due_ms > now_ms:
                self._watch(rule, device)
            elif (change := self._evaluator.silent(rule, device, due_ms)) is not None:
                yield change

    def _watch(self, rule: Rule, device: str) -> None:
        key = (rule.owner, rule.id, device)
        if key not in self._watched:
            self._watched.add(key)
            heapq.heappush(self._due, (self._due_ms(rule, device), *key))

    def _due_ms(self, rule: Rule, device: str) -> int:
        newest = self._evaluator.newest.get((rule.owner, device, rule.definition.sensor_type))
        since_ms = rule.created_at_ms if newest is None else max(newest.received_ms, rule.created_at_ms)
        return since_ms + rule.for_ms
