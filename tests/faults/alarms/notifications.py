"""Judges the ledger, and what a receiver got, by the changes of alarms.

Each change that owners are notified of has one row for each address, or is counted in a digest of an hour in which
sixty were sent; each row was received, under its id only, with the one body that it has, and signed. Nothing else was.
"""

import base64
import hashlib
import hmac
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.faults.alarms.findings import AlarmsVerdict, Finding
from tests.faults.alarms.history import Row

MAX_AN_HOUR = 60
HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Call:
    """A call that the receiver took."""

    id: str
    url: str
    timestamp: str
    signature: str
    body: bytes
    # Whether it was answered with 2xx, perhaps too late.
    accepted: bool


@dataclass(frozen=True)
class Entry:
    """A row of the ledger; times in ms since 1970."""

    id: str
    rule_id: str
    url: str
    body: str
    state: str
    created_at_ms: int
    due_at_ms: int
    is_digest: bool = False


@dataclass
class Notified:
    """What is known of the notifications of one rule."""

    rule_id: str
    label: str
    secret: str
    urls: Sequence[str]
    # By the ids of its alarms, the rows that its owner is notified of.
    changes: Mapping[str, Sequence[Row]] = field(default_factory=dict)


def judged_notifications(
    rules: Sequence[Notified], entries: Sequence[Entry], calls: Sequence[Call], now_ms: int
) -> AlarmsVerdict:
    """Return the verdict; `now_ms`: a digest that was not due by then may be pending."""
    verdict = AlarmsVerdict()
    calls_of: defaultdict[str, list[Call]] = defaultdict(list)
    for call in calls:
        calls_of[call.id].append(call)
    secrets = {rule.rule_id: rule.secret for rule in rules}
    for entry in entries:
        may_wait = entry.is_digest and entry.due_at_ms > now_ms
        if not (may_wait and entry.state == "pending"):
            verdict.findings += _delivered(entry, calls_of[entry.id])
        verdict.findings += _as_sent(entry, calls_of[entry.id], secrets.get(entry.rule_id, ""))
    unknown = calls_of.keys() - {entry.id for entry in entries}
    verdict.findings += [Finding("false", f"the receiver got {one}, which is not in the ledger") for one in unknown]
    for rule in rules:
        for url in rule.urls:
            mine = [one for one in entries if (one.rule_id, one.url) == (rule.rule_id, url)]
            _of_address(verdict, rule, mine, calls_of)
    verdict.figures["calls"] = len(calls)
    verdict.figures["repeats"] = sum(len(some) - 1 for some in calls_of.values() if some)
    return verdict


def _of_address(
    verdict: AlarmsVerdict, rule: Notified, entries: Sequence[Entry], calls_of: Mapping[str, Sequence[Call]]
) -> None:
    """Judge what one address was told of one rule's alarms."""
    ids: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
    digests: Counter[str] = Counter()
    sent: Counter[int] = Counter()
    for entry in entries:
        data = json.loads(entry.body)["data"]
        if entry.is_digest:
            digests.update(data["changes"])
        else:
            sent[entry.created_at_ms // HOUR_MS] += 1
            ids[data["alarm"], data["number"]].add(entry.id)
            verdict.findings += _tells(rule, data)
    rows = {(alarm, row.number): row for alarm, changes in rule.changes.items() for row in changes}
    for (alarm, number), some in ids.items():
        if len(some) > 1:
            verdict.findings.append(Finding("under two ids", f"{rule.label}: {alarm}, number {number}"))
        received = any(call.accepted for one in some for call in calls_of[one])
        verdict.changes += (alarm, number) in rows
        verdict.notified += (alarm, number) in rows and received
    left = Counter(row.state for key, row in rows.items() if key not in ids)
    verdict.figures["in digests"] += digests.total()
    for state, count in (left - digests).items():
        verdict.changes += count
        verdict.findings += [Finding("missing", f"{rule.label}: a notification of {state}")] * count
    for state, count in (digests - left).items():
        verdict.findings += [Finding("twice", f"{rule.label}: {state} in a digest")] * count
    if digests and max(sent.values(), default=0) != MAX_AN_HOUR:
        verdict.findings.append(Finding("false", f"{rule.label}: a digest after {max(sent.values(), default=0)}"))
    if max(sent.values(), default=0) > MAX_AN_HOUR:
        verdict.findings.append(Finding("false", f"{rule.label}: {max(sent.values())} notifications in an hour"))


def _tells(rule: Notified, data: dict[str, Any]) -> Iterator[Finding]:
    """A notification says what the history says."""
    row = next((one for one in rule.changes.get(data["alarm"], ()) if one.number == data["number"]), None)
    if row is None:
        yield Finding("false", f"{rule.label}: a notification of {data['state']}, which is not in the history")
    elif (row.state, row.cause, row.value) != (data["state"], data["cause"], data["value"]):
        yield Finding("false", f"{rule.label}: {row} is notified as {data['state']} ({data['cause']})")


def _delivered(entry: Entry, calls: Sequence[Call]) -> Iterator[Finding]:
    accepted = any(call.accepted for call in calls)
    if entry.state == "pending":
        yield Finding("missing", f"{entry.id} is pending in the end, after {len(calls)} calls")
    elif entry.state == "dead" and accepted:
        yield Finding("false", f"{entry.id} is dead, although the receiver has taken it")
    elif not accepted:
        yield Finding("missing", f"{entry.id} is {entry.state}, and the receiver has not taken it")


def _as_sent(entry: Entry, calls: Sequence[Call], secret: str) -> Iterator[Finding]:
    for call in calls:
        if call.url != entry.url:
            yield Finding("false", f"{entry.id} was sent to {call.url}")
        if call.body != entry.body.encode():
            yield Finding("false", f"{entry.id} has another body than the ledger")
        if call.signature != signature_of(secret, call):
            yield Finding("false", f"{entry.id} is not signed by its rule's secret")


def signature_of(secret: str, call: Call) -> str:
    """Return the signature that Standard Webhooks asks for."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{call.id}.{call.timestamp}.".encode() + call.body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
