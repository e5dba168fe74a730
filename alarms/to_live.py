"""ALARMS → READERS: broadcasts what became of alarms, for the live feeds of their owners. Transient and unconfirmed."""

from collections.abc import Sequence

from alarms.deliveries.notification import Recorded
from broker.alarms import AlarmEvent, encode_event
from broker.interface import Broadcaster
from runtime.times import rfc3339


class ToLive:
    """Broadcasts for one process."""

    def __init__(self, broadcaster: Broadcaster) -> None:
        self._broadcaster = broadcaster

    def broadcast(self, recorded: Sequence[Recorded]) -> None:
        """Broadcast changes of alarms whose rules name the feed."""
        for one in recorded:
            if not any(notified.kind == "feed" for notified in one.rule.definition.notify):
                continue
            self._broadcaster.broadcast(encode_event(_event(one)))


def _event(one: Recorded) -> AlarmEvent:
    definition = one.rule.definition
    return AlarmEvent(
        id=one.alarm_id,
        owner=one.rule.owner,
        rule=one.rule.id,
        name=definition.name,
        severity=definition.severity,
        device=one.device,
        sensor_type=one.sensor_type,
        state=one.state,
        cause=one.cause,
        number=one.number,
        ts=rfc3339(one.ts_ms),
        value=one.value,
        unit=one.unit,
        message=one.message,
    )
