"""What a persister announces of stored readings that rules watch, and when."""

import asyncio

import bson
import pytest

from broker.alarms import Watch, decode_announcement
from broker.interface import BrokerError, BrokerRefused, BrokerUnavailable, QueueFull
from broker.message import Message
from persister.to_alarms import ToAlarms
from persister.watched import WatchedSeries
from readings.document import AS_MILLISECONDS, encode_document, series_bytes
from readings.reading import Reading
from tests.persister.alarms_stub import Alarms
from tests.persister.harness import Harness, document


class AlarmsQueue:
    """A publisher to the alarms' queue, which fails first. Records what was acknowledged when it published."""

    def __init__(self, harness: Harness, *failures: BrokerError) -> None:
        self.harness = harness
        self.failures = list(failures)
        self.bodies: list[bytes] = []
        self.acknowledged: list[int] = []

    async def publish(self, message: Message, _: object) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.acknowledged.append(len(self.harness.queue.acknowledged))
        self.bodies.append(message.body)

    async def check(self) -> None:
        pass

    @property
    def announced(self) -> list[tuple[str, list[int]]]:
        """The sensorType and the times, counted from the first, of what was announced."""
        return [
            (one.sensor_type, [reading.ts_ms - 1_700_000_000_000 for reading in one.readings])
            for body in self.bodies
            for one in decode_announcement(body)
        ]


async def watching(*watches: Watch) -> WatchedSeries:
    alarms = Alarms()
    await alarms.says(*watches, whole=True)
    return alarms.watched


async def run(harness: Harness, watched: WatchedSeries, *failures: BrokerError) -> AlarmsQueue:
    queue = AlarmsQueue(harness, *failures)
    harness.persister._alarms = ToAlarms(queue, watched, harness.metrics)
    await harness.run()
    return queue


TEMPERATURES = Watch("r1", "owner", "temperature", None)


async def test_what_is_watched_is_announced_before_it_is_acknowledged() -> None:
    harness = Harness([Message.of([document(1), document(2, "humidity"), document(3)])])
    queue = await run(harness, await watching(TEMPERATURES))
    assert queue.announced == [("temperature", [1, 3])]
    assert queue.acknowledged == [0]
    assert len(harness.store.written) == 3


@pytest.mark.parametrize("value", [7, 2**31, -(2**63), 2.5, True, "text"])
async def test_every_value_is_announced_as_it_was_sent(value: int | float | str) -> None:
    sent = encode_document("owner", "device", Reading("temperature", value, 1_700_000_000_000, 0, 1))
    queue = await run(Harness([Message.of([sent])]), await watching(TEMPERATURES))
    (announced,) = decode_announcement(queue.bodies[0])
    assert [(one.value, type(one.value)) for one in announced.readings] == [(value, type(value))]


async def test_what_nobody_watches_is_not_announced() -> None:
    for watched in (await watching(), await watching(Watch("r1", "owner", "temperature", ["another"]))):
        assert (await run(Harness([Message.of([document(1)])]), watched)).bodies == []


async def test_until_the_list_is_loaded_everything_is_announced() -> None:
    harness = Harness([Message.of([document(1), document(2, "humidity")])])
    queue = await run(harness, Alarms().watched)
    assert sorted(queue.announced) == [("humidity", [2]), ("temperature", [1])]


async def test_duplicates_are_announced_and_what_is_refused_is_not() -> None:
    harness = Harness([Message.of([document(1), document(2)]), Message.of([document(1)])])
    harness.store.refuse = {document(2)}
    harness.store.written.append(document(1))
    queue = await run(harness, await watching(TEMPERATURES))
    assert [at for _, times in queue.announced for at in times].count(1) == 2
    assert not [times for _, times in queue.announced if 2 in times]


@pytest.mark.parametrize("failure", [QueueFull("full"), BrokerRefused("no permission")])
async def test_readings_are_stored_although_their_alarms_cannot_be_announced(failure: BrokerError) -> None:
    harness = Harness([Message.of([document(1)])])
    queue = await run(harness, await watching(TEMPERATURES), failure)
    assert (queue.bodies, harness.store.written) == ([], [document(1)])
    assert harness.registry.get_sample_value("tidegate_persister_unannounced_total") == 1


async def test_while_the_broker_is_away_it_is_announced_again() -> None:
    harness = Harness([Message.of([document(1)])])
    queue = await run(harness, await watching(TEMPERATURES), BrokerUnavailable("away"), BrokerUnavailable("away"))
    assert queue.announced == [("temperature", [1])]
    assert queue.acknowledged == [0]


async def test_what_was_not_announced_when_it_stops_is_not_acknowledged() -> None:
    harness = Harness([Message.of([document(1)])])
    queue = AlarmsQueue(harness, *(BrokerUnavailable("away") for _ in range(1000)))
    harness.persister._alarms = ToAlarms(queue, await watching(TEMPERATURES), harness.metrics)
    task = asyncio.ensure_future(harness.persister.run(harness.stop))
    async with asyncio.timeout(30):
        while len(queue.failures) == 1000:
            await asyncio.sleep(0.01)
        harness.stop.set()
        await task
    assert harness.store.written == [document(1)]
    assert harness.queue.acknowledged == []


async def test_what_is_stored_and_no_reading_is_left_out() -> None:
    """Documents of a known series are stored unopened, so only an announcement opens them."""
    whole = bson.decode(document(1), AS_MILLISECONDS)
    broken = bson.encode({"_id": whole["_id"], "note": "not by a gateway"})
    harness = Harness([Message.of([document(2)]), Message.of([broken, document(3)])])
    harness.persister._known.add(series_bytes(broken))
    queue = await run(harness, await watching(TEMPERATURES))
    assert sorted(at for _, times in queue.announced for at in times) == [2, 3]
    assert harness.registry.get_sample_value("tidegate_persister_unannounced_total") == 1
