"""A process that evaluates, without its broker."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from alarms.deliveries.notification import Recorded
from alarms.evaluation.evaluator import Change
from alarms.evaluation.leader import Leader
from alarms.evaluation.store import AlarmStore
from alarms.rules.rule import Rule
from alarms.rules.state import OK, Phase, State
from alarms.rules.store import RuleStore
from database.connection import Database
from tests.alarms.making import START_MS, definition

HOOK = {"notify": [{"kind": "webhook", "url": "https://example.org/hook"}]}


@asynccontextmanager
async def leading(database: Database) -> AsyncIterator[AlarmStore]:
    """Yield the store of a process that holds the lease."""
    leader = Leader(database)
    assert await leader._claim()
    yield AlarmStore(database, leader)


async def stored_rule(database: Database, owner: str = "ada", **changes: object) -> Rule:
    return (await RuleStore(database).create(owner, definition(**HOOK | changes), None)).rule


def fires(rule: Rule, at: int, device: str = "press") -> Change:
    return _change(rule, State(Phase.FIRING, START_MS + at), at, device)


def ends(rule: Rule, at: int, device: str = "press") -> Change:
    return _change(rule, OK, at, device)


def late(rule: Rule, at: int, device: str = "press") -> Change:
    return replace(fires(rule, at, device), cause="late")


def _change(rule: Rule, state: State, at: int, device: str) -> Change:
    return Change(rule, device, "temperature", state, "reading", (START_MS + at, 0), START_MS + at)


def states(recorded: Sequence[Recorded]) -> list[tuple[int, str, str]]:
    """Return number, state and cause of what was recorded."""
    return [(one.number, one.state, one.cause) for one in recorded]
