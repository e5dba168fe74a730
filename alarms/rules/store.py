"""Rules in the users' database.

Each change takes the next number from a counter whose row stays locked until the commit, so that numbers become visible
in the order of commits: whoever asks for all changes after a number misses none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from alarms.rules.definition import RuleDefinition
from alarms.rules.rule import Rule, rule_of
from database.alarm_tables import alarm_rule_counter, alarm_rules
from database.connection import Database, server_time_ms
from database.ids import new_id

MAX_RULES = 1000
# How long a removed rule's row is kept: it signs what is still to be delivered, a digest of its last hour included.
REMOVED_FOR_MS = 26 * 3_600_000
# Rows of an owner's removed rules: who removes and makes rules without end waits.
MAX_REMOVED = 10 * MAX_RULES
# Read at once, in some 50 ms: of all rules together, the database's deadline would not allow for.
RULES_AT_ONCE = 2000
# After a rotation, webhooks are signed with both secrets for so long.
BOTH_SECRETS_MS = 86_400_000


class TooManyRulesError(Exception):
    """The owner has as many rules as anyone may have, or has removed too many within a day."""


class NoSuchRuleError(Exception):
    """The owner has no such rule."""


class NoSuchOwnerError(Exception):
    """The account is deleted."""


@dataclass(frozen=True, slots=True)
class StoredRule:
    """A rule, when it was changed, and the sealed secrets that sign its webhooks now; none if it has no webhooks."""

    rule: Rule
    changed_at_ms: int
    sealed_secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """Rules that changed, ids of those that were removed (owner, id), and the number up to which this is complete.

    `is_whole`: it begins with every rule there is. `has_more`: what changed after `number` is to be asked for at once.
    """

    rules: list[Rule]
    removed: list[tuple[str, str]]
    number: int
    is_whole: bool = False
    has_more: bool = False


class RuleStore:
    """The rules of all owners. Every method raises Problem 503 if the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, owner: str, definition: RuleDefinition, sealed_secret: str | None) -> StoredRule:
        """Store a new rule; TooManyRulesError, or NoSuchOwnerError if the account is deleted."""
        try:
            async with self._database.begin() as connection:
                number = await _next_number(connection)
                now = await server_time_ms(connection)
                await _forget_removed(connection, owner, now)
                counted = select(func.count(), func.count(alarm_rules.c.removed_at_ms))
                of_owner = counted.where(alarm_rules.c.owner_id == owner)
                count, removed = (await connection.execute(of_owner)).one()
                if count - removed >= MAX_RULES or removed >= MAX_REMOVED:
                    raise TooManyRulesError
                row: dict[str, Any] = {
                    "owner_id": owner,
                    "id": new_id(),
                    "definition": msgspec.json.encode(definition).decode(),
                    "version": 1,
                    "created_at_ms": now,
                    "changed_at_ms": now,
                    "sealed_secret": sealed_secret,
                    "number": number,
                }
                await connection.execute(insert(alarm_rules).values(row))
        except IntegrityError as error:
            raise NoSuchOwnerError from error
        return StoredRule(rule_of(owner, row["id"], 1, now, definition), now, (sealed_secret,) if sealed_secret else ())

    async def find(self, owner: str, rule_id: str) -> StoredRule:
        """Return a rule; NoSuchRuleError."""
        async with self._database.connect() as connection:
            return await _find(connection, owner, rule_id)

    async def page(self, owner: str, after: str | None, limit: int) -> tuple[list[StoredRule], str | None]:
        """Return the owner's rules behind an id, the oldest first, and the cursor of the next page."""
        query = select(alarm_rules).where(alarm_rules.c.owner_id == owner, alarm_rules.c.removed_at_ms.is_(None))
        if after is not None:
            query = query.where(alarm_rules.c.id > after)
        async with self._database.connect() as connection:
            now = await server_time_ms(connection)
            rows = list(await connection.execute(query.order_by(alarm_rules.c.id).limit(limit + 1)))
        found = [_stored(row._asdict(), now) for row in rows[:limit]]
        return found, found[-1].rule.id if len(rows) > limit else None

    async def change(
        self, owner: str, rule_id: str, definition: RuleDefinition, sealed_secret: str | None
    ) -> StoredRule:
        """Store another definition; NoSuchRuleError. `sealed_secret`: for a rule that has none yet.

        The version is raised where the rule watches something else from now on.
        """
        async with self._database.begin() as connection:
            number = await _next_number(connection)
            before = await _find(connection, owner, rule_id)
            version = before.rule.version + (_watched(before.rule.definition) != _watched(definition))
            now = await server_time_ms(connection)
            values: dict[str, Any] = {
                "definition": msgspec.json.encode(definition).decode(),
                "version": version,
                "changed_at_ms": now,
                "number": number,
            }
            if sealed_secret is not None and not before.sealed_secrets:
                values["sealed_secret"] = sealed_secret
            await connection.execute(update(alarm_rules).where(*_is(owner, rule_id)).values(values))
            return await _find(connection, owner, rule_id)

    async def rotate_secret(self, owner: str, rule_id: str, sealed_secret: str) -> None:
        """Sign with this secret from now on, and with the one before as well for a day; NoSuchRuleError."""
        async with self._database.begin() as connection:
            await _find(connection, owner, rule_id)
            until = await server_time_ms(connection) + BOTH_SECRETS_MS
            current = select(alarm_rules.c.sealed_secret).where(*_is(owner, rule_id))
            values = {
                "previous_sealed_secret": await connection.scalar(current),
                "previous_until_ms": until,
                "sealed_secret": sealed_secret,
            }
            await connection.execute(update(alarm_rules).where(*_is(owner, rule_id)).values(values))

    async def remove(self, owner: str, rule_id: str) -> None:
        """Remove a rule; NoSuchRuleError."""
        async with self._database.begin() as connection:
            number = await _next_number(connection)
            await _find(connection, owner, rule_id)
            now = await server_time_ms(connection)
            values = {"removed_at_ms": now, "number": number}
            await connection.execute(update(alarm_rules).where(*_is(owner, rule_id)).values(values))
            await _forget_removed(connection, owner, now)

    async def changes_after(self, number: int | None) -> Changes:
        """Return what changed after a number; for None, or a number that was never given, every rule there is.

        In their order, at most `RULES_AT_ONCE`: a rule that changes meanwhile comes again with what follows.
        """
        async with self._database.connect() as connection:
            # The counter first: every change up to it is committed. Later ones are returned again next time.
            newest = await connection.scalar(select(alarm_rule_counter.c.number)) or 0
            if number is not None and number == newest:
                return Changes([], [], newest)
            query = select(alarm_rules).order_by(alarm_rules.c.number).limit(RULES_AT_ONCE)
            is_whole = number is None or number > newest
            if is_whole:
                query = query.where(alarm_rules.c.removed_at_ms.is_(None))
            else:
                query = query.where(alarm_rules.c.number > number)
            rows = [row._asdict() for row in await connection.execute(query)]
        kept = [rule_in(row) for row in rows if row["removed_at_ms"] is None]
        removed = [(row["owner_id"], row["id"]) for row in rows if row["removed_at_ms"] is not None]
        has_more = len(rows) == RULES_AT_ONCE
        return Changes(kept, removed, rows[-1]["number"] if has_more else newest, is_whole, has_more)


async def _next_number(connection: AsyncConnection) -> int:
    """Take the next number: from here on, all other changes wait for the commit."""
    await connection.execute(update(alarm_rule_counter).values(number=alarm_rule_counter.c.number + 1))
    return int(await connection.scalar(select(alarm_rule_counter.c.number)) or 0)


async def _forget_removed(connection: AsyncConnection, owner: str, now_ms: int) -> None:
    old = alarm_rules.c.removed_at_ms <= now_ms - REMOVED_FOR_MS
    await connection.execute(delete(alarm_rules).where(alarm_rules.c.owner_id == owner, old))


async def _find(connection: AsyncConnection, owner: str, rule_id: str) -> StoredRule:
    query = select(alarm_rules).where(*_is(owner, rule_id), alarm_rules.c.removed_at_ms.is_(None))
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NoSuchRuleError
    return _stored(row._asdict(), await server_time_ms(connection))


def _is(owner: str, rule_id: str) -> tuple[Any, Any]:
    return alarm_rules.c.owner_id == owner, alarm_rules.c.id == rule_id


def rule_in(row: Mapping[str, Any]) -> Rule:
    """Return the rule of a row."""
    definition = msgspec.json.decode(row["definition"], type=RuleDefinition)
    return rule_of(row["owner_id"], row["id"], row["version"], row["created_at_ms"], definition)


def secrets_in(row: Mapping[str, Any], now_ms: int) -> tuple[str, ...]:
    """Return the sealed secrets that sign the webhooks of a row's rule now: none, one, or after a rotation two."""
    previous = row["previous_sealed_secret"] if (row["previous_until_ms"] or 0) > now_ms else None
    return tuple(one for one in (row["sealed_secret"], previous) if one)


def _stored(row: dict[str, Any], now_ms: int) -> StoredRule:
    return StoredRule(rule_in(row), row["changed_at_ms"], secrets_in(row, now_ms))


def _watched(definition: RuleDefinition) -> tuple[Any, ...]:
    return (
        definition.devices,
        definition.sensor_type,
        definition.when,
        definition.for_seconds,
        definition.hysteresis,
        definition.schedule,
    )
