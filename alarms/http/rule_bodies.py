"""The bodies of the calls about rules."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from alarms.rules.definition import RuleDefinition
from alarms.rules.store import StoredRule
from alarms.rules.trial import Trial
from database.ids import ID
from runtime.http.wording import rule as in_words
from runtime.times import TimeText, rfc3339

MAX_PAGE = 1000
Cursor = Annotated[str, Meta(pattern=ID, extra=in_words("a cursor from an earlier response"))]


class RulesQuery(msgspec.Struct):
    """Query of `GET /alarms/rules`; the cursor is the last id of the previous page."""

    cursor: Cursor | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 100


class RuleAnswer(RuleDefinition, forbid_unknown_fields=False, kw_only=True):
    """A rule, as shown to its owner. `secret`: only where it was made, and never again."""

    id: str
    created_at: TimeText
    changed_at: TimeText
    secret: str | UnsetType = UNSET

    @classmethod
    def of(cls, stored: StoredRule, secret: str | None = None) -> "RuleAnswer":
        """Return the response for a rule."""
        definition = stored.rule.definition
        values = {name: getattr(definition, name) for name in RuleDefinition.__struct_fields__}
        return cls(
            **values,
            id=stored.rule.id,
            created_at=rfc3339(stored.rule.created_at_ms),
            changed_at=rfc3339(stored.changed_at_ms),
            secret=secret or UNSET,
        )


class RulesAnswer(msgspec.Struct, rename="camel"):
    """A page of rules; without `nextCursor`, it is the last."""

    items: list[RuleAnswer]
    next_cursor: str | UnsetType = UNSET


class SecretAnswer(msgspec.Struct):
    """A new secret, shown once."""

    secret: str


class TrialItem(msgspec.Struct, rename="camel"):
    """A time at which the alarm would have fired, and until when; without `to`, it would be firing still."""

    device: str
    sensor_type: str
    from_: TimeText = msgspec.field(name="from")
    to: TimeText | UnsetType = UNSET


class TrialAnswer(msgspec.Struct, rename="camel"):
    """When a rule would have fired in the last day. `complete` is false where there was more than was read."""

    items: list[TrialItem]
    series: int
    readings: int
    complete: bool

    @classmethod
    def of(cls, trial: Trial) -> "TrialAnswer":
        """Return the response for a trial."""
        items = [
            TrialItem(
                one.device, one.sensor_type, rfc3339(one.from_ms), UNSET if one.to_ms is None else rfc3339(one.to_ms)
            )
            for one in trial.firings
        ]
        return cls(items, trial.series, trial.readings, trial.complete)


def _time(ms: int | None) -> TimeText | UnsetType:
    return UNSET if ms is None else rfc3339(ms)
