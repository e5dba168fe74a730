"""The persister's loop: what is acknowledged and when, and the outcome of each reading."""

import asyncio
import struct

import bson
import pytest

from broker.message import Message
from persister.batch import MAX_DELIVERIES, Outcome
from persister.to_mongodb import Written
from readings.document import decode_document
from testing.waiting import eventually
from tests.persister.harness import Harness, Store, document
from tests.readings.cases import closed


async def test_a_batch_is_acknowledged_once_after_it_was_written() -> None:
    harness = Harness([Message.of([document(1), document(2)]), Message.of([document(3)])])
    await harness.run()
    assert harness.store.written == [document(1), document(2), document(3)]
    assert harness.queue.acknowledged == [(2, True)]
    assert harness.outcomes == [Outcome.STORED] * 3


async def test_a_failing_write_is_tried_again_and_nothing_is_acknowledged_meanwhile() -> None:
    harness = Harness([Message.of([document(1)])], failures=3)
    await harness.run()
    assert harness.store.acknowledged_at_write == [0, 0, 0, 0]
    assert harness.queue.acknowledged == [(1, True)]


async def test_duplicates_count_as_stored_and_are_counted() -> None:
    harness = Harness([Message.of([document(1)]), Message.of([document(1), document(2)])])
    await harness.run()
    assert harness.outcomes == [Outcome.STORED, Outcome.DUPLICATE, Outcome.STORED]
    assert harness.registry.get_sample_value("tidegate_persister_duplicates_total") == 1
    assert harness.registry.get_sample_value("tidegate_persister_readings_total", {"outcome": "stored"}) == 2


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Message(b"\x05\x00\x00"), "undecodable"),
        (Message(b""), "undecodable"),
        (Message(document(9), {"x-schema": 2}), "newer_schema"),
        (Message(document(9), {}), "undecodable"),
    ],
)
async def test_a_message_that_cannot_be_read_is_dead_as_a_whole_and_its_neighbours_are_stored(
    message: Message, reason: str
) -> None:
    harness = Harness([Message.of([document(1)]), message, Message.of([document(2)])], dead_failures=2)
    await harness.run()
    assert harness.store.written == [document(1), document(2)]
    (dead,) = harness.dead.messages
    assert dead.body == message.body
    assert dead.headers["x-reason"] == reason
    assert dead.headers["x-service"] == "persister"


async def test_what_mongodb_refuses_is_dead_alone_and_keeps_the_form_of_a_message() -> None:
    harness = Harness([Message.of([document(1), document(2), document(3)])])
    harness.store.refuse = {document(2)}
    await harness.run()
    assert harness.outcomes == [Outcome.STORED, Outcome.DEAD, Outcome.STORED]
    (dead,) = harness.dead.messages
    assert dead.documents() == [document(2)]
    assert (dead.headers["x-reason"], dead.headers["x-error"]) == ("refused", "too odd")


async def test_a_document_that_makes_a_whole_write_impossible_is_found_and_dead_alone() -> None:
    harness = Harness([Message.of([document(number) for number in range(9)])])
    harness.store.impossible = {document(2), document(7)}
    await harness.run()
    assert sorted(dead.body for dead in harness.dead.messages) == sorted([document(2), document(7)])
    assert harness.outcomes.count(Outcome.STORED) == 7
    assert harness.outcomes[2] is harness.outcomes[7] is Outcome.DEAD


async def test_a_stop_in_an_outage_gives_the_batch_back_unacknowledged() -> None:
    harness = Harness([Message.of([document(1)])], failures=10**9)
    stop = harness.stop
    task = asyncio.ensure_future(harness.persister.run(stop))
    async with asyncio.timeout(5):
        while not harness.store.acknowledged_at_write:
            await asyncio.sleep(0)
        stop.set()
        await task
    assert not harness.queue.acknowledged


async def test_a_series_is_noted_at_its_first_sight_only() -> None:
    harness = Harness([Message.of([document(1), document(2), document(3, "humidity")]), Message.of([document(4)])])
    await harness.run()
    assert [key["sensorType"] for key in harness.store.series] == ["temperature", "humidity"]


async def test_a_stop_ends_an_idle_persister_at_once() -> None:
    harness = Harness([])
    stop = harness.stop
    task = asyncio.ensure_future(harness.persister.run(stop))
    await asyncio.sleep(0)
    stop.set()
    await asyncio.wait_for(task, 1)


async def test_a_document_whose_key_stands_elsewhere_is_dead_each_time_it_comes() -> None:
    good = document(1)
    value_at = good.index(b"\x10value\0")
    other = good[:4] + good[value_at:-1] + good[4:value_at] + good[-1:]
    assert list(decode_document(other)) == ["value", "receivedAt", "_id"]
    harness = Harness([Message.of([document(2), other]), Message.of([other, document(3)])])
    await harness.run()
    assert harness.outcomes.count(Outcome.STORED) == 2
    assert harness.outcomes.count(Outcome.DEAD) == 2
    assert [(dead.body, dead.headers["x-reason"]) for dead in harness.dead.messages] == [(other, "undecodable")] * 2


@pytest.mark.parametrize("left", [0, 7, 8, 22])
async def test_a_document_that_ends_inside_its_key_is_dead_alone_and_ends_no_worker(left: int) -> None:
    good = document(2)
    short = closed(good[: good.index(b"\x09ts\0") + 4] + bytes(left))
    harness = Harness([Message.of([document(1), short, good]), Message.of([document(3), document(4)])])
    await harness.run()
    assert harness.store.written == [document(1), good, document(3), document(4)]
    assert sorted(outcome.name for outcome in harness.outcomes) == ["DEAD"] + ["STORED"] * 4
    assert [(dead.body, dead.headers["x-reason"]) for dead in harness.dead.messages] == [(short, "undecodable")]


@pytest.mark.parametrize(
    "message",
    [Message(b"\xff\xff"), Message(b"")],
    ids=["torn", "empty"],
)
async def test_a_message_that_came_too_often_is_dead_of_that_even_if_it_could_not_be_read(message: Message) -> None:
    harness = Harness([Message.of([document(1)])])
    harness.queue.deliver(message, 2, MAX_DELIVERIES)
    harness.queue.deliver(message, 3, MAX_DELIVERIES - 1)
    await harness.run()
    assert harness.store.written == [document(1)]
    often, less_often = harness.dead.messages
    assert often.body == less_often.body == message.body
    assert often.headers["x-reason"] == "too_often"
    assert less_often.headers["x-reason"] == "undecodable"


@pytest.mark.parametrize(
    ("headers", "reason"), [({"x-schema": 2}, "newer_schema"), ({}, "undecodable")], ids=["newer", "no schema"]
)
async def test_a_message_of_another_schema_stays_that_however_often_it_came(
    headers: dict[str, int | str], reason: str
) -> None:
    harness = Harness([Message.of([document(1)])])
    harness.queue.deliver(Message(document(9), headers), 2, MAX_DELIVERIES)
    await harness.run()
    assert [dead.headers["x-reason"] for dead in harness.dead.messages] == [reason]


def id_of(*fields: bytes) -> bytes:
    inside = b"".join(fields)
    return b"\x03_id\0" + struct.pack("<i", len(inside) + 5) + inside + b"\0"


def text(name: str, value: str, kind: int = 2) -> bytes:
    raw = value.encode() + b"\0"
    return bytes([kind]) + name.encode() + b"\0" + struct.pack("<i", len(raw)) + raw


TS_SEQ = b"\x09ts\0" + bytes(8) + b"\x12seq\0" + bytes(8)
NAMES = (text("owner", "owner"), text("device", "device"), text("sensorType", "humidity"))
REST = b"\x10value\0" + bytes(4) + b"\x09receivedAt\0" + bytes(8)


@pytest.mark.parametrize(
    "fields",
    [
        id_of(TS_SEQ) + id_of(*NAMES, TS_SEQ),
        id_of(text("owner", "other"), *NAMES[1:], TS_SEQ) + id_of(*NAMES, TS_SEQ),
        id_of(text("owner", "other"), *NAMES, TS_SEQ),
        id_of(text("owner", "owner", 14), *NAMES[1:], TS_SEQ),
    ],
    ids=["nameless and another", "two of them", "owner twice", "owner as a symbol"],
)
async def test_a_key_that_decodes_to_other_names_than_its_bytes_say_makes_no_series_known(fields: bytes) -> None:
    odd = closed(bytes(4) + fields + REST + b"\0")
    nameless = bson.encode({"value": 1})
    harness = Harness([Message.of([odd, document(1)]), Message.of([nameless, odd, document(2)])])
    await harness.run()
    assert harness.store.written == [document(1), document(2)]
    assert [key["sensorType"] for key in harness.store.series] == ["temperature"]
    assert {dead.headers["x-reason"] for dead in harness.dead.messages} == {"undecodable"}


def test_the_document_that_those_differ_from_is_a_reading() -> None:
    assert decode_document(closed(bytes(4) + id_of(*NAMES, TS_SEQ) + REST + b"\0"))["_id"]["owner"] == "owner"


async def test_documents_are_written_by_series_and_in_a_series_as_they_came() -> None:
    sent = [document(4, "b"), document(3, "a"), document(2, "b"), document(1, "a")]
    harness = Harness([Message.of(sent[:2]), Message.of(sent[2:])])
    await harness.run()
    assert harness.store.written == [sent[1], sent[3], sent[0], sent[2]]


async def test_an_owner_that_an_older_copy_made_a_living_one_again_is_stored_whenever_a_worker_learns_of_it() -> None:
    """Also if the batch was examined after all series were forgotten."""
    harness = Harness([Message.of([document(1)])])

    class Restored(Store):
        async def verify(self) -> None:
            harness.persister._deleted.replace([])  # the last step of loading the state again

    store = Restored(harness.queue)
    harness.replace_store(store)
    harness.persister._deleted.add(["owner"])
    await harness.run()
    assert store.written == [document(1)]
    assert harness.outcomes == [Outcome.STORED]


async def test_the_next_batch_is_written_while_one_is_and_no_third() -> None:
    harness = Harness([])
    going: list[list[bytes]] = []
    may_end = asyncio.Event()

    async def write(documents: list[bytes]) -> Written:
        going.append(documents)
        await may_end.wait()
        return Written([Outcome.STORED] * len(documents), {})

    harness.store.write = write  # type: ignore[method-assign,assignment]
    task = asyncio.ensure_future(harness.persister.run(harness.stop))
    for tag in range(1, 6):
        harness.queue.deliver(Message.of([document(tag)]), tag)
        for _ in range(20):
            await asyncio.sleep(0)
    assert going == [[document(1)], [document(2)]], "two are written, the others gather"
    may_end.set()
    async with asyncio.timeout(5):
        await harness.queue.settled.wait()
    assert [one for written in going for one in written] == [document(tag) for tag in range(1, 6)]
    assert len(going) < 5, "what gathered was written together"
    harness.stop.set()
    await task


async def test_while_dead_letters_are_refused_the_others_go_on_and_nothing_is_lost() -> None:
    harness = Harness([Message(b"bad"), Message.of([document(1)])], dead_failures=10**9)
    task = asyncio.ensure_future(harness.persister.run(harness.stop))

    async def only_the_bad_one_is_left() -> bool:
        return list(harness.queue.open) == [1]

    await eventually(only_the_bad_one_is_left, "the good one is settled")
    for tag in range(3, 40):
        harness.queue.deliver(Message.of([document(tag)]), tag)
    await eventually(only_the_bad_one_is_left, "those that come later are settled, too")
    assert harness.persister.acks.parked == 1
    harness.dead.failures = 0
    async with asyncio.timeout(10):
        await harness.queue.settled.wait()
    assert [dead.body for dead in harness.dead.messages] == [b"bad"]
    harness.stop.set()
    await task


async def test_a_message_that_came_often_is_written_alone_and_one_that_came_too_often_is_dead() -> None:
    harness = Harness([])
    written: list[list[bytes]] = []
    write = harness.store.write

    async def noting(documents: list[bytes]) -> Written:
        written.append(documents)
        return await write(documents)

    harness.store.write = noting  # type: ignore[method-assign,assignment]
    for tag, count in ((1, 0), (2, 2), (3, 3), (4, 0), (5, 100), (6, 0)):
        harness.queue.deliver(Message.of([document(tag)]), tag, count)
    await harness.run()
    assert written == [[document(1), document(2)], [document(3)], [document(4)], [document(6)]]
    (dead,) = harness.dead.messages
    assert (dead.headers["x-reason"], dead.documents()) == ("too_often", [document(5)])


@pytest.mark.parametrize(("requeues", "dead"), [(0, 1), (20, 1), (21, 0), (500, 0)])
async def test_what_workers_requeued_themselves_does_not_count_against_a_message(requeues: int, dead: int) -> None:
    harness = Harness([])
    harness.requeues.counts = {document(1): requeues}
    harness.queue.deliver(Message.of([document(1)]), 1, MAX_DELIVERIES + 20)
    await harness.run()
    assert len(harness.dead.messages) == dead
    assert len(harness.store.written) == 1 - dead


async def test_what_is_redelivered_is_asked_for_first_and_not_written_again() -> None:
    harness = Harness([])
    harness.store.written = [document(1)]
    harness.queue.deliver(Message.of([document(1), document(2)]), 1, 1)
    await harness.run()
    assert harness.store.written == [document(1), document(2)]
    assert harness.outcomes == [Outcome.DUPLICATE, Outcome.STORED]


async def test_a_dead_letter_keeps_the_headers_of_its_message() -> None:
    headers: dict[str, str | int] = {"x-schema": 7, "x-replays": 2, "x-first-seen": "2026-01-01T00:00:00.000Z"}
    harness = Harness([Message(document(1), headers)])
    await harness.run()
    (dead,) = harness.dead.messages
    assert {name: dead.headers[name] for name in headers} == headers
    assert dead.headers["x-reason"] == "newer_schema"


async def test_a_dead_letter_whose_message_was_not_settled_any_more_is_not_counted_as_settled() -> None:
    """Its consumer was cancelled meanwhile: the message comes again, and counts then."""
    harness = Harness([Message.of([document(1)])])
    harness.store.refuse.add(document(1))
    harness.queue.stale = True
    task = asyncio.ensure_future(harness.persister.run(harness.stop))
    async with asyncio.timeout(10):
        while not harness.dead.messages or harness.persister.acks.parked:
            await asyncio.sleep(0)
    assert harness.outcomes == []
    harness.queue.stale = False
    harness.queue.deliver(harness.queue.open[1], 2)
    del harness.queue.open[1]
    async with asyncio.timeout(10):
        await harness.queue.settled.wait()
        while not harness.outcomes:
            await asyncio.sleep(0)
        harness.stop.set()
        await task
    assert harness.outcomes == [Outcome.DEAD]
