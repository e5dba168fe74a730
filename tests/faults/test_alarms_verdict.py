"""The verdict on alarms: made-up histories, ledgers and calls, of which one thing is planted to be wrong."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from tests.faults.alarms.findings import AlarmsVerdict, Finding
from tests.faults.alarms.history import Row, judged_history, notified_rows
from tests.faults.alarms.notifications import HOUR_MS, Call, Entry, Notified, judged_notifications, signature_of
from tests.faults.alarms.rules import RULES, RuleOf, Stored

SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMh"
URL = "http://127.0.0.1/hook"
VALUES = (70, 81, 90, 60, 95, 75, 72)
READINGS = [Stored(1000 * at, at, value, 1000 * at + 5) for at, value in enumerate(VALUES)]


def rule(label: str) -> RuleOf:
    (found,) = (one for one in RULES if one.label == label)
    return found


def rows(*changes: tuple[str, int], cause: str = "reading", first: int = 1) -> list[Row]:
    """Return rows of changes by readings, by their index."""
    return [
        Row(number, state, cause, READINGS[at].ts_ms, READINGS[at].seq, READINGS[at].value)
        for number, (state, at) in enumerate(changes, first)
    ]


GOOD = rows(("firing", 1), ("ok", 3), ("firing", 4), ("ok", 5))


def kinds(findings: Sequence[Finding]) -> set[str]:
    return {one.kind for one in findings}


@pytest.mark.parametrize("label", ["steady-above", "loose-above"])
def test_a_history_as_its_readings_make_it_is_right(label: str) -> None:
    assert judged_history(rule(label), READINGS, GOOD) == []


def test_with_hysteresis_an_alarm_goes_on_near_its_bound() -> None:
    changes = rows(("firing", 1), ("ok", 3), ("firing", 4))
    over = Stored(7000, 7, 70)
    assert judged_history(rule("steady-hysteresis"), READINGS, changes) == []
    assert kinds(judged_history(rule("steady-hysteresis"), [*READINGS, over], changes)) == {"missing"}
    assert judged_history(rule("loose-hysteresis"), READINGS, changes) == []
    assert kinds(judged_history(rule("loose-hysteresis"), [*READINGS, over], changes)) == {"missing"}


def test_an_alarm_that_waits_is_pending_and_fires_by_the_times_of_readings() -> None:
    long = [Stored(500 * at, at, 81) for at in range(5)] + [Stored(3000, 5, 1), Stored(3500, 6, 90), Stored(4000, 7, 2)]
    expected = [(0, 0, "pending"), (1500, 3, "firing"), (3000, 5, "ok"), (3500, 6, "pending"), (4000, 7, "ok")]
    assert rule("steady-for").transitions(long) == expected


def test_what_compares_with_the_reading_before_is_known_exactly() -> None:
    gap = [Stored(1, 1, 0), Stored(2, 2, 0), Stored(3, 4, 0), Stored(4, 5, 0)]
    assert rule("steady-gap").transitions(gap) == [(3, 4, "firing"), (4, 5, "ok")]
    modes = [Stored(at, at, value) for at, value in enumerate(["run", "run", "fault", "run", "run"])]
    assert rule("steady-changed").transitions(modes) == [(2, 2, "firing"), (4, 4, "ok")]
    assert rule("steady-equals").transitions(modes) == [(2, 2, "firing"), (3, 3, "ok")]


@pytest.mark.parametrize("label", ["steady-above", "loose-above"])
@pytest.mark.parametrize("lost", range(4))
def test_a_transition_that_is_not_there_is_missed(label: str, lost: int) -> None:
    kept = [one for one in GOOD if one.number != lost + 1]
    assert "missing" in kinds(judged_history(rule(label), READINGS, kept))


@pytest.mark.parametrize("label", ["steady-above", "loose-above"])
@pytest.mark.parametrize("last", [0, 2])
def test_announcements_that_were_lost_from_somewhere_on_are_missed(label: str, last: int) -> None:
    """Nothing is wrong with the numbers: the rows are as if the last readings had never been stored."""
    assert "missing" in kinds(judged_history(rule(label), READINGS, GOOD[:last]))


def test_an_announcement_that_was_lost_in_the_middle_is_missed() -> None:
    unseen = rows(("firing", 4), ("ok", 5))
    for label in ("steady-above", "loose-above"):
        assert kinds(judged_history(rule(label), READINGS, unseen)) == {"missing"}


@pytest.mark.parametrize("label", ["steady-above", "loose-above"])
@pytest.mark.parametrize("doubled", range(4))
def test_a_transition_that_is_there_twice_is_found(label: str, doubled: int) -> None:
    again = [replace(one, number=one.number + (one.number > doubled + 1)) for one in GOOD]
    again.append(replace(GOOD[doubled], number=doubled + 2))
    assert "twice" in kinds(judged_history(rule(label), READINGS, again))
    assert "twice" in kinds(judged_history(rule(label), READINGS, [*GOOD, GOOD[doubled]]))


def test_an_alarm_without_a_reason_is_found() -> None:
    for changed in (replace(GOOD[0], ts_ms=999), replace(GOOD[0], value=82), *rows(("firing", 0))):
        for label in ("steady-above", "loose-above"):
            assert "false" in kinds(judged_history(rule(label), READINGS, [changed, *GOOD[1:]]))


def test_an_end_at_a_reading_at_which_it_goes_on_is_found() -> None:
    changed = [GOOD[0], *rows(("ok", 2), first=2), *GOOD[2:]]
    for label in ("steady-above", "loose-above"):
        assert "false" in kinds(judged_history(rule(label), READINGS, changed))


def test_states_in_an_order_that_cannot_be_are_found() -> None:
    for changed in (
        rows(("ok", 3)),
        rows(("firing", 4), ("ok", 5), ("firing", 1), ("ok", 3)),
        [Row(1, "acknowledged", "owner", 1, 0)],
        [Row(1, "firing", "silence", 1, 0)],
    ):
        assert "false" in kinds(judged_history(rule("loose-above"), READINGS, changed))


def test_a_late_reading_is_an_alarm_of_its_own_or_within_another_one() -> None:
    late = [*GOOD[:2], *rows(("firing", 4), ("ok", 4), cause="late", first=3)]
    assert judged_history(rule("loose-above"), READINGS, late) == []
    assert "false" in kinds(judged_history(rule("steady-above"), READINGS, late)), "none of its readings is late"
    for wrong in (late[:3], [*late[:3], replace(late[3], ts_ms=0)], [*late[:3], replace(late[3], state="firing")]):
        assert "false" in kinds(judged_history(rule("loose-above"), READINGS, wrong))


def test_an_acknowledgement_is_between_firing_and_ok() -> None:
    acknowledged = [
        GOOD[0],
        Row(2, "acknowledged", "owner", 1500, 0),
        *(replace(one, number=one.number + 1) for one in GOOD[1:]),
    ]
    for label in ("steady-above", "loose-above"):
        assert judged_history(rule(label), READINGS, acknowledged) == []


def test_silences_begin_after_a_reading_and_the_last_one_is_there() -> None:
    silent = rule("pulsing-silent")
    pulses = [READINGS[0], replace(READINGS[1], received_ms=9000)]
    begun = [
        Row(1, "firing", "silence", 5005, 0),
        Row(2, "ok", "reading", 9000, 1, 81),
        Row(3, "firing", "silence", 14000, 0),
    ]
    assert judged_history(silent, pulses, begun, now_ms=20_000) == []
    assert kinds(judged_history(silent, pulses, begun[:2], now_ms=20_000)) == {"missing"}
    assert judged_history(silent, pulses, begun[:2], now_ms=13_000) == []
    assert kinds(judged_history(silent, pulses, [*begun[:2], replace(begun[2], ts_ms=13_000)])) == {"false"}
    assert judged_history(silent, pulses, [*begun[:2], replace(begun[2], ts_ms=13_000)], repeats=[(7000, 8100)]) == []
    assert kinds(judged_history(silent, pulses, [begun[0], replace(begun[1], seq=9), begun[2]])) == {"false"}


def test_pending_alarms_are_not_notified_nor_their_ends() -> None:
    changes = rows(("pending", 1), ("ok", 3), ("pending", 4), ("firing", 4), ("ok", 5))
    assert [one.number for one in notified_rows(changes)] == [4, 5]


def entry(row: Row, number: int, **changed: object) -> Entry:
    data = {"alarm": "a", "number": row.number, "state": row.state, "cause": row.cause, "value": row.value}
    body = json.dumps({"type": f"alarm.{row.state}", "data": data})
    return replace(Entry(f"id-{number}", "rule", URL, body, "delivered", 1, 1), **changed)  # type: ignore[arg-type]


def call(of: Entry, *, accepted: bool = True, **changed: object) -> Call:
    made = replace(Call(of.id, of.url, "1", "", of.body.encode(), accepted), **changed)  # type: ignore[arg-type]
    return replace(made, signature=signature_of(SECRET, made))


ENTRIES = [entry(row, row.number) for row in GOOD]
CALLS = [call(one) for one in ENTRIES]


def judged(
    entries: Sequence[Entry] = ENTRIES, calls: Sequence[Call] = CALLS, changes: Sequence[Row] = GOOD
) -> AlarmsVerdict:
    return judged_notifications([Notified("rule", "rule", SECRET, [URL], {"a": changes})], entries, calls, HOUR_MS - 1)


def test_changes_that_are_notified_once_or_often_under_one_id_are_right() -> None:
    verdict = judged(calls=[call(ENTRIES[0], accepted=False), *CALLS, CALLS[0]])
    assert verdict.holds
    assert verdict.line().startswith(
        "alarms: 4 changes, 4 notified, 0 missing, 0 twice, 0 under two ids, 0 false; 0 in digests, 6 calls, 2 repeats"
    )


def test_a_run_without_a_change_proves_nothing() -> None:
    assert not judged([], [], []).holds


PLANTED: dict[str, tuple[str, Callable[[], AlarmsVerdict]]] = {
    "a change without a notification": ("missing", lambda: judged(ENTRIES[1:], CALLS[1:])),
    "a notification that was not received": ("missing", lambda: judged(calls=CALLS[1:])),
    "one that was refused": ("missing", lambda: judged(calls=[call(ENTRIES[0], accepted=False), *CALLS[1:]])),
    "one that is pending": ("missing", lambda: judged([replace(ENTRIES[0], state="pending"), *ENTRIES[1:]])),
    "one that is dead although it was taken": (
        "false",
        lambda: judged([replace(ENTRIES[0], state="dead"), *ENTRIES[1:]]),
    ),
    "one under two ids": (
        "under two ids",
        lambda: judged([*ENTRIES, replace(ENTRIES[0], id="b")], [*CALLS, call(replace(ENTRIES[0], id="b"))]),
    ),
    "an id that is not in the ledger": ("false", lambda: judged(calls=[*CALLS, call(replace(ENTRIES[0], id="b"))])),
    "another body": ("false", lambda: judged(calls=[call(ENTRIES[0], body=b"{}"), *CALLS])),
    "another secret": ("false", lambda: judged(calls=[replace(CALLS[0], signature="v1,AAAA"), *CALLS])),
    "another address": ("false", lambda: judged(calls=[replace(CALLS[0], url="http://127.0.0.1/other"), *CALLS])),
    "one of a change that is not in the history": ("false", lambda: judged(changes=GOOD[:3])),
    "one that says something else": (
        "false",
        lambda: judged(changes=[replace(GOOD[0], state="acknowledged"), *GOOD[1:]]),
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_what_is_wrong_with_a_notification_is_found(planted: str) -> None:
    kind, plant = PLANTED[planted]
    assert kind in kinds(plant().findings)
    assert not plant().holds


def digest(due_at_ms: int, **changes: int) -> Entry:
    body = json.dumps({"type": "alarm.digest", "data": {"changes": changes}})
    return Entry("digest", "rule", URL, body, "pending", 1, due_at_ms, is_digest=True)


def test_changes_beyond_sixty_an_hour_are_in_a_digest_that_is_sent_when_the_hour_is_over() -> None:
    flaps = [Row(number, ("ok", "firing")[number % 2], "reading", number, 0, 1) for number in range(1, 71)]
    entries = [entry(row, row.number) for row in flaps[:60]]
    calls = [call(one) for one in entries]
    verdict = judged([*entries, digest(HOUR_MS, firing=5, ok=5)], calls, flaps)
    assert verdict.holds
    assert (verdict.changes, verdict.notified, verdict.figures["in digests"]) == (60, 60, 10)
    assert kinds(judged([*entries, digest(1, firing=5, ok=5)], calls, flaps).findings) == {"missing"}
    assert kinds(judged([*entries, digest(HOUR_MS, firing=5, ok=4)], calls, flaps).findings) == {"missing"}
    assert kinds(judged([*entries, digest(HOUR_MS, firing=5, ok=6)], calls, flaps).findings) == {"twice"}
    early = judged([*entries[:50], digest(HOUR_MS, firing=10, ok=10)], calls[:50], flaps)
    assert kinds(early.findings) == {"false"}
