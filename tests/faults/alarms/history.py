"""Judges the history of one alarm by all stored readings of its series.

What holds in whatever order readings are announced:

- rows are numbered from 1 without a hole, and none of them is there twice;
- states follow each other as they may, in the order of the readings; what was late is `firing` and `ok` at one reading;
- where an alarm fires there is a stored reading at which its condition holds, and where it ends one at which it does
  not;
- each stored reading at which a condition holds by itself is within a firing, and the state in the end is that of the
  newest reading;
- a silence begins so long after a stored reading was received, ends when one was, and there is one in the end.

Of a series whose readings were announced in order, the transitions are known exactly.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.faults.alarms.findings import Finding, found
from tests.faults.alarms.rules import RuleOf, Stored

_MAY_FOLLOW = {
    "ok": {"pending", "firing"},
    "pending": {"firing", "ok"},
    "firing": {"acknowledged", "ok"},
    "acknowledged": {"ok"},
}


@dataclass(frozen=True)
class Row:
    """A row of a history; times in ms since 1970."""

    number: int
    state: str
    cause: str
    ts_ms: int
    seq: int
    value: Any = None

    @property
    def position(self) -> tuple[int, int]:
        """The reading that is its cause."""
        return self.ts_ms, self.seq

    def __str__(self) -> str:
        return f"{self.state} ({self.cause}) at {self.position}, number {self.number}"


def judged_history(
    rule: RuleOf,
    readings: Sequence[Stored],
    rows: Sequence[Row],
    *,
    now_ms: int = 0,
    repeats: Sequence[tuple[int, int]] = (),
) -> list[Finding]:
    """Return what is wrong. `now_ms`: until then, silences are to be there; `repeats`: when readings were sent again.

    A gateway receives a reading that is sent again at another time than the one that is stored.
    """
    rows = sorted(rows, key=lambda one: one.number)
    findings = [*_rows_once(rows), *_order(rows)]
    if rule.op == "silent":
        findings += _silences(rule, readings, rows, now_ms, repeats)
    else:
        findings += _with_readings(rule, readings, rows)
        if rule.is_exact:
            findings += _exact(rule, readings, rows)
        elif rule.is_by_itself:
            findings += _covered(rule, readings, rows)
    return [Finding(one.kind, f"{rule.label}: {one.what}") for one in findings]


def notified_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that owners are notified of: all but pending ones, and the ends of what was only pending."""
    notified, before = [], "ok"
    for row in sorted(rows, key=lambda one: one.number):
        if row.cause == "late":
            notified.append(row)
            continue
        if {before, row.state} & {"firing", "acknowledged"}:
            notified.append(row)
        before = row.state
    return notified


def _rows_once(rows: Sequence[Row]) -> list[Finding]:
    numbers = Counter(one.number for one in rows)
    there = Counter((one.position, one.state, one.cause) for one in rows)
    return [
        *found("missing", [f"number {one}" for one in range(1, max(numbers, default=0) + 1) if one not in numbers]),
        *found("twice", [f"number {number}" for number, count in numbers.items() if count > 1]),
        *found("twice", [f"{state} ({cause}) at {at}" for (at, state, cause), count in there.items() if count > 1]),
    ]


def _order(rows: Sequence[Row]) -> Iterator[Finding]:
    state, newest, late = "ok", (-1, -1), list[Row]()
    for row in rows:
        if row.cause == "late":
            late.append(row)
            continue
        if row.state not in _MAY_FOLLOW[state]:
            yield Finding("false", f"{row} after {state}")
        if row.cause == "reading" and row.position <= newest:
            yield Finding("false", f"{row} behind a later one")
        newest = max(newest, row.position) if row.cause == "reading" else newest
        state = row.state
    for first, second in zip(late[::2], [*late[1::2], None], strict=False):
        pair = [first.state, second.state, second.number - first.number] if second else []
        if second is None or pair != ["firing", "ok", 1] or first.position != second.position:
            yield Finding("false", f"{first} is not followed by its end")


def _with_readings(rule: RuleOf, readings: Sequence[Stored], rows: Sequence[Row]) -> Iterator[Finding]:
    """Rows by readings that are not stored, or at which it is not so."""
    stored = {one.position: one for one in readings}
    for row in rows:
        if row.cause not in ("reading", "late"):
            if row.cause != "owner":
                yield Finding("false", f"{row}, and nothing was removed or silent")
            continue
        reading = stored.get(row.position)
        if reading is None or reading.value != row.value:
            yield Finding("false", f"{row} with {row.value!r}: no such reading is stored")
        elif not rule.is_by_itself:
            continue
        elif row.state == "firing" and not rule.holds(reading, None, held=False):
            yield Finding("false", f"{row} with {row.value!r}, which is no reason")
        elif row.state == "ok" and row.cause == "reading" and rule.holds(reading, None, held=True):
            yield Finding("false", f"{row} with {row.value!r}, at which it goes on")


def _exact(rule: RuleOf, readings: Sequence[Stored], rows: Sequence[Row]) -> list[Finding]:
    expected = Counter(rule.transitions(readings))
    there = Counter((*one.position, one.state) for one in rows if one.cause != "owner")
    return [
        *found("missing", [f"{state} at {at}" for *at, state in (expected - there).elements()]),
        *found("twice", [f"{one[2]} at {one[:2]}" for one in (there - expected).elements() if one in expected]),
        *found("false", [f"{one[2]} at {one[:2]}" for one in (there - expected).elements() if one not in expected]),
    ]


def _covered(rule: RuleOf, readings: Sequence[Stored], rows: Sequence[Row]) -> Iterator[Finding]:
    late = {one.position for one in rows if one.cause == "late"}
    changes = [one for one in rows if one.cause == "reading"]
    changes.sort(key=lambda one: one.position)
    begins = {one.ts_ms for one in changes if one.state == "firing"}
    at, state = 0, "ok"
    ordered = sorted(readings, key=lambda one: one.position)
    for reading in ordered:
        while at < len(changes) and changes[at].position <= reading.position:
            state = changes[at].state
            at += 1
        # A firing begins at its time: of readings at one time, no one knows which came first.
        is_within = state == "firing" or reading.position in late or reading.ts_ms in begins
        if rule.holds(reading, None, held=False) and not is_within:
            yield Finding("missing", f"the reading {reading.value!r} at {reading.position} is within no firing")
    if ordered and state == "firing" and not rule.holds(ordered[-1], None, held=True):
        yield Finding("missing", f"the end, as the newest reading is {ordered[-1].value!r} at {ordered[-1].position}")


def _silences(
    rule: RuleOf, readings: Sequence[Stored], rows: Sequence[Row], now_ms: int, repeats: Sequence[tuple[int, int]]
) -> Iterator[Finding]:
    for_ms = round(rule.for_s * 1000)
    begins = {one.received_ms + for_ms for one in readings}
    received = {(one.received_ms, one.seq, one.value) for one in readings}
    firing = [one for one in rows if one.state == "firing"]
    for row in firing:
        has_begun = row.ts_ms in begins or any(begin <= row.ts_ms - for_ms <= end for begin, end in repeats)
        # The first may be of the time at which the rule was made.
        if row.cause != "silence" or not (has_begun or row.number == 1):
            yield Finding("false", f"{row}, when nothing had begun to be silent")
    for row in rows:
        is_received = (*row.position, row.value) in received or any(begin <= row.ts_ms <= end for begin, end in repeats)
        if row.state == "ok" and (row.cause != "reading" or not is_received):
            yield Finding("false", f"{row}: no such reading was received")
    if not readings:
        return
    last = max(readings, key=lambda one: one.received_ms).received_ms + for_ms
    if last < now_ms and not (rows and rows[-1].state in ("firing", "acknowledged") and firing[-1].ts_ms >= last):
        yield Finding("missing", f"the silence in the end, at {last}")
