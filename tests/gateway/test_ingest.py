"""Devices on a real port: the acknowledgement of each event, on the fast path and on the plain path alike."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from broker.embedded.broker import EmbeddedBroker
from broker.interface import BrokerUnavailable, ConfirmLate, QueueFull, Unroutable
from broker.topology import DEAD_LETTERS, READINGS, READINGS_EXCHANGE, Queue
from readings.document import decode_document, document_ts_ms
from runtime.times import now_ms
from testing.waiting import eventually
from tests.gateway.fakes import FakeBroker
from tests.gateway.harness import ACCEPTED, DEFAULTS, ISSUING, RunningGateway, gateway, reading, stored

FACE = "\U0001f600"


@pytest.fixture(autouse=True, params=["true", "false"], ids=["fast path", "plain path"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs every test of this module on both."""
    monkeypatch.setitem(DEFAULTS, "fast_lane", request.param == "true")


async def test_a_reading_is_acknowledged_after_its_confirm_and_not_before(
    stalled: RunningGateway, fake_broker: FakeBroker
) -> None:
    async with stalled.connected({"token": ISSUING.device()}) as client:
        for event, payload, accepted in (("reading", reading(1), 1), ("readings", [reading(1), reading(2)], 2)):
            number = len(fake_broker.outgoing.messages)
            call = asyncio.ensure_future(client.call(event, payload, timeout=5))
            await fake_broker.outgoing.wait_published(number + 1)
            # Another event's answer overtakes: the connection works, only the acknowledgement waits.
            assert (await client.call("nonsense", {}, timeout=5))["code"] == "unknown_event"
            assert not call.done()
            fake_broker.outgoing.confirm(number)
            assert await call == {"status": "accepted", "accepted": accepted}


async def test_good_readings_among_bad_ones_are_accepted_and_the_bad_ones_named(
    running: RunningGateway, embedded: EmbeddedBroker
) -> None:
    batch = [reading(1), reading(None), reading(2), reading(3, x=1), {"value": 4, "ts": "now"}, 7]
    async with running.connected({"token": ISSUING.device()}) as client:
        answer = await client.call("readings", batch, timeout=5)
    assert (answer["status"], answer["accepted"]) == ("partial", 2)
    assert [(found["index"], found["code"]) for found in answer["rejected"]] == [
        (1, "invalid_value"),
        (3, "invalid_field"),
        (4, "invalid_ts"),
        (5, "invalid_reading"),
    ]
    assert all(set(found) == {"index", "code", "detail"} and found["detail"] for found in answer["rejected"])
    assert [document["value"] for document in await stored(embedded, 2)] == [1, 2]


async def test_readings_of_which_none_is_good_are_partial_with_zero_and_publish_nothing(
    stalled: RunningGateway, fake_broker: FakeBroker
) -> None:
    async with stalled.connected({"token": ISSUING.device()}) as client:
        answer = await client.call("readings", [reading(None)], timeout=5)
    assert (answer["status"], answer["accepted"], answer["rejected"][0]["code"]) == ("partial", 0, "invalid_value")
    assert fake_broker.outgoing.messages == []


REJECTED: list[tuple[str, str, Any, str]] = [
    ("bad value", "reading", {"value": None}, "invalid_value"),
    ("bad ts", "reading", {"value": 1, "ts": 1.5}, "invalid_ts"),
    ("bad field", "reading", {"value": 1, "owner": "x"}, "invalid_field"),
    ("no object", "reading", 7, "invalid_reading"),
    ("an array", "reading", [reading(1)], "invalid_reading"),
    ("nothing", "reading", (), "invalid_reading"),
    ("two payloads", "reading", (reading(1), reading(2)), "invalid_reading"),
    ("no array", "readings", reading(1), "invalid_reading"),
    ("no payload", "readings", (), "invalid_reading"),
    ("two arrays", "readings", ([reading(1)], [reading(2)]), "invalid_reading"),
    ("none", "readings", [], "batch_size"),
    ("too many", "readings", [reading(number) for number in range(1001)], "batch_size"),
    ("too many bad ones", "readings", [None] * 1001, "batch_size"),
    ("unknown", "temperature", reading(1), "unknown_event"),
    ("other case", "Reading", reading(1), "unknown_event"),
    ("empty name", "", reading(1), "unknown_event"),
    ("the library's own", "event", reading(1), "unknown_event"),
    ("a catch-all", "*", reading(1), "unknown_event"),
    ("too large", "reading", {"value": "x" * 1024 * 1024}, "too_large"),
]


@pytest.mark.parametrize(
    ("event", "payload", "code"), [row[1:] for row in REJECTED], ids=[f"{row[1]}: {row[0]}" for row in REJECTED]
)
async def test_an_invalid_event_is_rejected_with_its_code(
    stalled: RunningGateway, fake_broker: FakeBroker, event: str, payload: Any, code: str
) -> None:
    async with stalled.connected({"token": ISSUING.device()}) as client:
        answer = await client.call(event, payload, timeout=5)
    assert answer.pop("detail")
    assert answer == {"status": "rejected", "code": code}
    assert fake_broker.outgoing.messages == []


@pytest.mark.parametrize("name", ["connect", "disconnect"])
async def test_reserved_names_reach_no_handler(stalled: RunningGateway, fake_broker: FakeBroker, name: str) -> None:
    async with stalled.raw() as socket:
        await socket.receive_str(timeout=5)
        await socket.send_str(f'421["{name}",{{"aiohttp.request":null}}]')
        assert json.loads((await socket.receive_str(timeout=5))[3:])[0]["code"] == "unknown_event"
        assert stalled.count("connections") == 1
    assert fake_broker.outgoing.messages == []


@pytest.mark.parametrize(
    "payload",
    [
        '["reading",NaN]',
        '["reading",{"value":NaN}]',
        '["reading",{"value":Infinity}]',
        '["reading",{"value":"\\ud800"}]',
        '["readings",[{"value":1},{"value":"\\udfff"}]]',
        '["reading",{"value":1}',
        '["reading",{"value":01}]',
        "[]",
        "[1]",
        "[null,{}]",
        '["reading",' + "[" * 100_000 + "]" * 100_000 + "]",
        "[" * 100_000,
        '["reading",{"value":1e999}]',
        '["reading",{"value":' + "9" * 5000 + "}]",
    ],
    ids=lambda payload: payload[:40],
)
async def test_a_payload_that_is_no_json_is_rejected_and_the_session_goes_on(
    stalled: RunningGateway, fake_broker: FakeBroker, payload: str
) -> None:
    fake_broker.outgoing.auto_confirm = True
    async with stalled.raw() as socket:
        await socket.receive_str(timeout=5)
        await socket.send_str("421" + payload)
        answer = await socket.receive_str(timeout=5)
        assert answer.startswith("431[")
        (found,) = json.loads(answer[3:])
        expected = "invalid_value" if "1e999" in payload or "9999" in payload else "invalid_reading"
        assert (found["status"], found["code"]) == ("rejected", expected)
        assert fake_broker.outgoing.messages == []
        await socket.send_str('422["reading",{"value":1}]')
        assert await socket.receive_str(timeout=5) == '432[{"status":"accepted","accepted":1}]'


async def test_an_event_as_large_as_the_bound_is_taken_and_one_byte_more_is_not(fake_broker: FakeBroker) -> None:
    fake_broker.outgoing.auto_confirm = True
    async with gateway(fake_broker, max_event_bytes=200) as found, found.raw() as socket:
        await socket.receive_str(timeout=5)
        for length, status in ((200, "accepted"), (201, "rejected")):
            event = '["reading",{"value":1}]'
            await socket.send_str("421" + event[:-1] + " " * (length - len(event)) + "]")
            assert json.loads((await socket.receive_str(timeout=5))[3:])[0]["status"] == status


async def test_a_frame_beyond_the_bound_closes_the_socket_with_1009(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker, max_frame_bytes=100_000) as found, found.raw() as socket:
        await socket.receive_str(timeout=5)
        await socket.send_str('421["reading",{"value":"' + "x" * 100_000 + '"}]')
        async with asyncio.timeout(5):
            while not socket.closed:
                await socket.receive()
        assert socket.close_code == 1009


async def test_an_event_without_acknowledgement_is_stored_all_the_same(
    running: RunningGateway, embedded: EmbeddedBroker
) -> None:
    async with running.connected({"token": ISSUING.device()}) as client:
        await client.emit("reading", reading(5))
        (document,) = await stored(embedded, 1)
    assert document["value"] == 5


async def test_an_event_before_the_connect_is_not_taken(stalled: RunningGateway, fake_broker: FakeBroker) -> None:
    fake_broker.outgoing.auto_confirm = True
    async with stalled.http.ws_connect(f"{stalled.url}/socket.io/?EIO=4&transport=websocket") as socket:
        await socket.receive_str(timeout=5)
        await socket.send_str('421["reading",{"value":1}]')
        await socket.send_str("40" + json.dumps({"token": ISSUING.device()}))
        while not (await socket.receive_str(timeout=5)).startswith("40{"):
            pass
        await socket.send_str('422["reading",{"value":2}]')
        assert (await socket.receive_str(timeout=5)).startswith("432[")
    assert [decode_document(message.body)["value"] for message in fake_broker.outgoing.messages] == [2]


# When the broker refuses


async def test_a_full_queue_is_busy_and_promises_nothing(tmp_path: Path) -> None:
    small = Queue(READINGS.name, READINGS_EXCHANGE, READINGS.binding, max_bytes=1000, dead_letter_queue=DEAD_LETTERS)
    async with (
        EmbeddedBroker.open_at(tmp_path / "queue.db", (DEAD_LETTERS, small)) as broker,
        gateway(broker) as found,
        found.connected({"token": ISSUING.device()}) as client,
    ):
        answers = [await client.call("reading", reading(number), timeout=5) for number in range(20)]
        accepted = answers.count(ACCEPTED)
        assert 0 < accepted < 10
        assert [answer for answer in answers if answer != ACCEPTED] == [
            {"status": "retry", "code": "busy", "retryAfterMs": answers[-1]["retryAfterMs"]}
        ] * (20 - accepted)
        assert answers[-1]["retryAfterMs"] > 0
        assert await broker.depth(small) == accepted


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (QueueFull("full"), "busy"),
        (BrokerUnavailable("away"), "unavailable"),
        (ConfirmLate("late"), "unavailable"),
        (Unroutable("unbound"), "unavailable"),
    ],
)
async def test_a_failed_publish_is_answered_with_retry_and_the_next_one_is_taken(
    stalled: RunningGateway, fake_broker: FakeBroker, failure: Exception, code: str
) -> None:
    fake_broker.outgoing.failure = failure
    async with stalled.connected({"token": ISSUING.device()}) as client:
        for event, payload in (("reading", reading(1)), ("readings", [reading(1), reading(None)])):
            answer = await client.call(event, payload, timeout=5)
            assert answer.pop("retryAfterMs") > 0
            assert answer == {"status": "retry", "code": code}
        fake_broker.outgoing.failure, fake_broker.outgoing.auto_confirm = None, True
        assert await client.call("reading", reading(1), timeout=5) == ACCEPTED


async def test_a_publisher_that_fails_unexpectedly_promises_nothing(
    stalled: RunningGateway, fake_broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(*_: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(fake_broker.outgoing, "publish", breaks)
    async with stalled.connected({"token": ISSUING.device()}) as client:
        assert (await client.call("reading", reading(1), timeout=5))["status"] == "retry"


async def test_beyond_what_may_wait_the_gateway_is_busy(fake_broker: FakeBroker) -> None:
    async with (
        gateway(fake_broker, max_waiting_bytes=1000) as found,
        found.connected({"token": ISSUING.device()}) as client,
    ):
        first = asyncio.ensure_future(client.call("reading", reading(1), timeout=5))
        await fake_broker.outgoing.wait_published(1)
        answer = await client.call("readings", [reading(number) for number in range(10)], timeout=5)
        assert (answer["status"], answer["code"]) == ("retry", "busy")
        fake_broker.outgoing.confirm_all()
        assert await first == ACCEPTED


# Batching


async def test_readings_of_many_devices_are_batched_into_one_publish_while_one_is_in_flight(
    stalled: RunningGateway, fake_broker: FakeBroker
) -> None:
    async with (
        stalled.connected({"token": ISSUING.device(sub="a", device="a")}) as one,
        stalled.connected({"token": ISSUING.device(sub="b", device="b", owner="other")}) as other,
    ):
        calls = [asyncio.ensure_future(one.call("reading", reading(0), timeout=5))]
        await fake_broker.outgoing.wait_published(1)
        for number in range(1, 101):
            client = one if number % 2 else other
            calls.append(asyncio.ensure_future(client.call("reading", reading(number), timeout=5)))
        await asyncio.sleep(0)
        for client in (one, other):  # answered in order: all that came before it is buffered by now
            await client.call("nonsense", 1, timeout=5)
        assert fake_broker.outgoing.sizes == [1]
        assert not any(call.done() for call in calls)
        fake_broker.outgoing.confirm(0)
        await fake_broker.outgoing.wait_published(2)
        assert fake_broker.outgoing.sizes == [1, 100]
        fake_broker.outgoing.confirm(1)
        assert await asyncio.gather(*calls) == [ACCEPTED] * 101
        documents = [decode_document(document) for document in fake_broker.outgoing.messages[1].documents()]
    assert {(found["_id"]["owner"], found["_id"]["device"], found["value"] % 2) for found in documents} == {
        ("user-1", "a", 1),
        ("other", "b", 0),
    }


async def test_late_readings_are_published_one_message_at_a_time_and_live_ones_beside_them(
    fake_broker: FakeBroker,
) -> None:
    late = [reading(number, seq=number) for number in range(1000)]
    live = [reading(number, seq=number, ts=now_ms()) for number in range(1000)]
    async with (
        gateway(fake_broker, backfill_after_seconds=900) as found,
        found.connected({"token": ISSUING.device()}) as client,
    ):
        calls = [asyncio.ensure_future(client.call("readings", one, timeout=10)) for one in (late, late, live, live)]
        try:
            await fake_broker.outgoing.wait_published(3)
            assert (await client.call("nonsense", 1, timeout=5))["code"] == "unknown_event"
            first = [document_ts_ms(message.documents()[0]) for message in fake_broker.outgoing.messages]
            assert [ts_ms == live[0]["ts"] for ts_ms in first] == [False, True, True]
            fake_broker.outgoing.confirm(0)
            await fake_broker.outgoing.wait_published(4)
        finally:
            fake_broker.outgoing.confirm_all()
        assert [answer["status"] for answer in await asyncio.gather(*calls)] == ["accepted"] * 4


async def test_an_event_larger_than_a_message_is_split_and_acknowledged_once(
    stalled: RunningGateway, fake_broker: FakeBroker
) -> None:
    batch = [reading(number, seq=number, unit=FACE * 8) for number in range(1000)]
    async with stalled.connected({"token": ISSUING.device(location=FACE * 256)}) as client:
        answers: list[Any] = []
        await client.emit("readings", batch, callback=answers.append)
        for number in range(2):  # the second is not full: it is buffered until the first is confirmed
            await fake_broker.outgoing.wait_published(number + 1)
            assert (await client.call("nonsense", 1, timeout=5))["code"] == "unknown_event"
            assert answers == []
            fake_broker.outgoing.confirm(number)

        async def answered() -> bool:
            return bool(answers)

        await eventually(answered, "the event is acknowledged")
        await client.call("nonsense", 1, timeout=5)
    assert answers == [{"status": "accepted", "accepted": 1000}]
    assert all(len(message.body) <= 1024 * 1024 for message in fake_broker.outgoing.messages)
    values = [
        decode_document(found)["value"] for message in fake_broker.outgoing.messages for found in message.documents()
    ]
    assert values == list(range(1000))


@pytest.mark.parametrize(
    "frame", ["nonsense", '{"a":1}', "", "null", '"reading"', '["reading"', '0-["reading",{"value":1}]', "[]", "[1,2]"]
)
async def test_an_event_that_is_no_event_is_answered_and_the_session_goes_on(
    running: RunningGateway, frame: str
) -> None:
    attachments, _, rest = frame.rpartition("-") if frame.startswith("0-") else ("", "", frame)
    sent = f"45{attachments}-7{rest}" if attachments else f"427{frame}"
    async with running.raw() as socket:
        assert (await socket.receive_str(timeout=5)).startswith("40")
        await socket.send_str(sent)
        assert json.loads((await socket.receive_str(timeout=5)).removeprefix("437"))[0]["code"] == "invalid_reading"
        await socket.send_str('428["reading",{"sensorType":"t","value":1}]')
        assert json.loads((await socket.receive_str(timeout=5)).removeprefix("438")) == [ACCEPTED]


async def test_announced_attachments_do_not_swallow_what_follows(running: RunningGateway) -> None:
    async with running.raw() as socket:
        assert (await socket.receive_str(timeout=5)).startswith("40")
        for packet in ("451-", "46", "461-", "44", "49", "4", "4x"):
            await socket.send_str(packet + '["x"]')
        await socket.send_str('428["reading",{"sensorType":"t","value":1}]')
        async with asyncio.timeout(5):
            while not (answer := await socket.receive_str()).startswith("438"):
                pass
        assert json.loads(answer.removeprefix("438")) == [ACCEPTED]
