"""Devices on a real port: what each event is answered with, on the fast lane and on the plain path alike."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from broker.embedded.broker import EmbeddedBroker
from broker.interface import BrokerUnavailable, ConfirmLate, QueueFull, Unroutable
from broker.topology import DEAD_LETTERS, READINGS, READINGS_EXCHANGE, Queue
from readings.document import decode_document
from testing.waiting import eventually
from tests.gateway.held import HeldBroker
from tests.gateway.running import ACCEPTED, DEFAULTS, ISSUING, Running, gateway, reading, stored

FACE = "\U0001f600"


@pytest.fixture(autouse=True, params=["true", "false"], ids=["fast lane", "plain path"])
def lane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test here runs on both."""
    monkeypatch.setitem(DEFAULTS, "fast_lane", request.param == "true")


async def test_a_reading_is_acknowledged_after_its_confirm_and_not_before(holding: Running, held: HeldBroker) -> None:
    async with holding.connected({"token": ISSUING.device()}) as client:
        for event, payload, accepted in (("reading", reading(1), 1), ("readings", [reading(1), reading(2)], 2)):
            number = len(held.held.messages)
            call = asyncio.ensure_future(client.call(event, payload, timeout=5))
            await held.held.published(number + 1)
            # Another event's answer overtakes: the connection works, only the acknowledgement waits.
            assert (await client.call("nonsense", {}, timeout=5))["code"] == "unknown_event"
            assert not call.done()
            held.held.confirm(number)
            assert await call == {"status": "accepted", "accepted": accepted}


async def test_readings_beside_bad_ones_are_taken_and_the_bad_ones_named(
    running: Running, embedded: EmbeddedBroker
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
    holding: Running, held: HeldBroker
) -> None:
    async with holding.connected({"token": ISSUING.device()}) as client:
        answer = await client.call("readings", [reading(None)], timeout=5)
    assert (answer["status"], answer["accepted"], answer["rejected"][0]["code"]) == ("partial", 0, "invalid_value")
    assert held.held.messages == []


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
async def test_an_event_that_is_not_taken_is_rejected_with_its_code(
    holding: Running, held: HeldBroker, event: str, payload: Any, code: str
) -> None:
    async with holding.connected({"token": ISSUING.device()}) as client:
        answer = await client.call(event, payload, timeout=5)
    assert answer.pop("detail")
    assert answer == {"status": "rejected", "code": code}
    assert held.held.messages == []


@pytest.mark.parametrize("name", ["connect", "disconnect"])
async def test_reserved_names_reach_no_handler(holding: Running, held: HeldBroker, name: str) -> None:
    async with holding.raw() as socket:
        await socket.receive_str(timeout=5)
        await socket.send_str(f'421["{name}",{{"aiohttp.request":null}}]')
        assert json.loads((await socket.receive_str(timeout=5))[3:])[0]["code"] == "unknown_event"
        assert holding.count("connections") == 1
    assert held.held.messages == []


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
    holding: Running, held: HeldBroker, payload: str
) -> None:
    held.held.free = True
    async with holding.raw() as socket:
        await socket.receive_str(timeout=5)
        await socket.send_str("421" + payload)
        answer = await socket.receive_str(timeout=5)
        assert answer.startswith("431[")
        (found,) = json.loads(answer[3:])
        expected = "invalid_value" if "1e999" in payload or "9999" in payload else "invalid_reading"
        assert (found["status"], found["code"]) == ("rejected", expected)
        assert held.held.messages == []
        await socket.send_str('422["reading",{"value":1}]')
        assert await socket.receive_str(timeout=5) == '432[{"status":"accepted","accepted":1}]'


async def test_an_event_as_large_as_the_bound_is_taken_and_one_byte_more_is_not(held: HeldBroker) -> None:
    held.held.free = True
    async with gateway(held, max_event_bytes=200) as found, found.raw() as socket:
        await socket.receive_str(timeout=5)
        for length, status in ((200, "accepted"), (201, "rejected")):
            event = '["reading",{"value":1}]'
            await socket.send_str("421" + event[:-1] + " " * (length - len(event)) + "]")
            assert json.loads((await socket.receive_str(timeout=5))[3:])[0]["status"] == status


async def test_a_frame_beyond_the_bound_closes_the_socket_with_1009(held: HeldBroker) -> None:
    async with gateway(held, max_frame_bytes=100_000) as found, found.raw() as socket:
        await socket.receive_str(timeout=5)
        await socket.send_str('421["reading",{"value":"' + "x" * 100_000 + '"}]')
        async with asyncio.timeout(5):
            while not socket.closed:
                await socket.receive()
        assert socket.close_code == 1009


async def test_an_event_without_acknowledgement_is_stored_all_the_same(
    running: Running, embedded: EmbeddedBroker
) -> None:
    async with running.connected({"token": ISSUING.device()}) as client:
        await client.emit("reading", reading(5))
        (document,) = await stored(embedded, 1)
    assert document["value"] == 5


async def test_an_event_before_the_connect_is_not_taken(holding: Running, held: HeldBroker) -> None:
    held.held.free = True
    async with holding.http.ws_connect(f"{holding.url}/socket.io/?EIO=4&transport=websocket") as socket:
        await socket.receive_str(timeout=5)
        await socket.send_str('421["reading",{"value":1}]')
        await socket.send_str("40" + json.dumps({"token": ISSUING.device()}))
        while not (await socket.receive_str(timeout=5)).startswith("40{"):
            pass
        await socket.send_str('422["reading",{"value":2}]')
        assert (await socket.receive_str(timeout=5)).startswith("432[")
    assert [decode_document(message.body)["value"] for message in held.held.messages] == [2]


# When the broker refuses


async def test_a_full_queue_is_busy_and_promises_nothing(tmp_path: Path) -> None:
    small = Queue(READINGS.name, READINGS_EXCHANGE, READINGS.binding, max_bytes=1000, dead=DEAD_LETTERS)
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
    holding: Running, held: HeldBroker, failure: Exception, code: str
) -> None:
    held.held.failure = failure
    async with holding.connected({"token": ISSUING.device()}) as client:
        for event, payload in (("reading", reading(1)), ("readings", [reading(1), reading(None)])):
            answer = await client.call(event, payload, timeout=5)
            assert answer.pop("retryAfterMs") > 0
            assert answer == {"status": "retry", "code": code}
        held.held.failure, held.held.free = None, True
        assert await client.call("reading", reading(1), timeout=5) == ACCEPTED


async def test_a_publisher_that_breaks_in_a_way_nobody_foresaw_promises_nothing(
    holding: Running, held: HeldBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(*_: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(held.held, "publish", breaks)
    async with holding.connected({"token": ISSUING.device()}) as client:
        assert (await client.call("reading", reading(1), timeout=5))["status"] == "retry"


async def test_beyond_what_may_wait_the_gateway_is_busy(held: HeldBroker) -> None:
    async with gateway(held, max_waiting_bytes=1000) as found, found.connected({"token": ISSUING.device()}) as client:
        first = asyncio.ensure_future(client.call("reading", reading(1), timeout=5))
        await held.held.published(1)
        answer = await client.call("readings", [reading(number) for number in range(10)], timeout=5)
        assert (answer["status"], answer["code"]) == ("retry", "busy")
        held.held.release()
        assert await first == ACCEPTED


# Gathering


async def test_readings_of_many_devices_are_gathered_into_one_publish_while_one_is_in_flight(
    holding: Running, held: HeldBroker
) -> None:
    async with (
        holding.connected({"token": ISSUING.device(sub="a", device="a")}) as one,
        holding.connected({"token": ISSUING.device(sub="b", device="b", owner="other")}) as other,
    ):
        calls = [asyncio.ensure_future(one.call("reading", reading(0), timeout=5))]
        await held.held.published(1)
        for number in range(1, 101):
            client = one if number % 2 else other
            calls.append(asyncio.ensure_future(client.call("reading", reading(number), timeout=5)))
        await asyncio.sleep(0)
        for client in (one, other):  # answered in order: all that came before it is gathered by now
            await client.call("nonsense", 1, timeout=5)
        assert held.held.sizes == [1]
        assert not any(call.done() for call in calls)
        held.held.confirm(0)
        await held.held.published(2)
        assert held.held.sizes == [1, 100]
        held.held.confirm(1)
        assert await asyncio.gather(*calls) == [ACCEPTED] * 101
        documents = [decode_document(document) for document in held.held.messages[1].documents()]
    assert {(found["_id"]["owner"], found["_id"]["device"], found["value"] % 2) for found in documents} == {
        ("user-1", "a", 1),
        ("other", "b", 0),
    }


async def test_an_event_larger_than_a_message_is_split_and_acknowledged_once(
    holding: Running, held: HeldBroker
) -> None:
    batch = [reading(number, seq=number, unit=FACE * 8) for number in range(1000)]
    async with holding.connected({"token": ISSUING.device(location=FACE * 256)}) as client:
        answers: list[Any] = []
        await client.emit("readings", batch, callback=answers.append)
        for number in range(2):  # the second is not full: it gathers until the first has landed
            await held.held.published(number + 1)
            assert (await client.call("nonsense", 1, timeout=5))["code"] == "unknown_event"
            assert answers == []
            held.held.confirm(number)

        async def answered() -> bool:
            return bool(answers)

        await eventually(answered, "the event is acknowledged")
        await client.call("nonsense", 1, timeout=5)
    assert answers == [{"status": "accepted", "accepted": 1000}]
    assert all(len(message.body) <= 1024 * 1024 for message in held.held.messages)
    values = [decode_document(found)["value"] for message in held.held.messages for found in message.documents()]
    assert values == list(range(1000))


@pytest.mark.parametrize(
    "frame", ["nonsense", '{"a":1}', "", "null", '"reading"', '["reading"', '0-["reading",{"value":1}]', "[]", "[1,2]"]
)
async def test_an_event_that_is_no_event_is_answered_and_the_session_goes_on(running: Running, frame: str) -> None:
    attachments, _, rest = frame.rpartition("-") if frame.startswith("0-") else ("", "", frame)
    sent = f"45{attachments}-7{rest}" if attachments else f"427{frame}"
    async with running.raw() as socket:
        assert (await socket.receive_str(timeout=5)).startswith("40")
        await socket.send_str(sent)
        assert json.loads((await socket.receive_str(timeout=5)).removeprefix("437"))[0]["code"] == "invalid_reading"
        await socket.send_str('428["reading",{"sensorType":"t","value":1}]')
        assert json.loads((await socket.receive_str(timeout=5)).removeprefix("438")) == [ACCEPTED]


async def test_announced_attachments_do_not_swallow_what_follows(running: Running) -> None:
    async with running.raw() as socket:
        assert (await socket.receive_str(timeout=5)).startswith("40")
        for packet in ("451-", "46", "461-", "44", "49", "4", "4x"):
            await socket.send_str(packet + '["x"]')
        await socket.send_str('428["reading",{"sensorType":"t","value":1}]')
        async with asyncio.timeout(5):
            while not (answer := await socket.receive_str()).startswith("438"):
                pass
        assert json.loads(answer.removeprefix("438")) == [ACCEPTED]
