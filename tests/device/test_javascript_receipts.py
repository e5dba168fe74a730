"""The JavaScript library with `receipts`, and its commands, against a server that the test controls."""

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from testing.waiting import eventually
from tests.device.javascript_process import JavaScriptDevice, javascript_device
from tests.device.javascript_server import fake_server

TOKEN = "a-token"


async def pending(device: JavaScriptDevice, count: int) -> None:
    async def reached() -> bool:
        return bool((await device.call("state"))["pending"] == count)

    await eventually(reached, f"{count} readings are pending")


async def test_with_receipts_a_reading_leaves_the_buffer_when_it_is_stored(tmp_path: Path) -> None:
    buffer = tmp_path / "readings.log"
    async with fake_server() as server:
        async with javascript_device(server.url, TOKEN, buffer=buffer, receipts=True) as device:
            await device.call("send", count=10)
            await server.received(10)
            assert server.auth[0] == {"token": TOKEN, "receipts": True}
            await server.receipts(*server.readings[:4])
            await pending(device, 6)
            other_time = [{**one, "ts": one["ts"] + 1} for one in server.readings]
            await server.receipts(*other_time)
            other_series = [{**one, "sensorType": "humidity"} for one in server.readings]
            await server.receipts(*other_series)
            await device.call("send")
            await server.received(11)
            await pending(device, 7)
        before = len(server.readings)
        async with javascript_device(server.url, TOKEN, buffer=buffer, receipts=True, first=20) as device:
            await server.received(before + 7)  # without a receipt they are sent again
            await server.receipts(*server.readings)
            await device.call("flush", ms=5000)


async def test_a_late_receipt_is_asked_for_and_what_is_not_stored_is_sent_again(tmp_path: Path) -> None:
    async with (
        fake_server() as server,
        javascript_device(server.url, TOKEN, buffer=tmp_path / "readings.log", receipts=True) as device,
    ):
        await device.call("send", count=10)
        await server.received(10)
        identities = [[one["ts"], one["seq"]] for one in server.readings]
        server.stored = {"temperature": identities[:7]}
        await pending(device, 10)
        assert server.asked == []
        await device.call("wait", ms=30_000)
        await pending(device, 3)
        asked = [one for item in server.asked[0]["items"] for one in item["readings"]]
        assert sorted(asked) == sorted(identities)
        assert len(server.readings) == 10, "they may be in the queue"
        await device.call("wait", ms=31_000)
        await server.received(13)
        assert sorted([one["ts"], one["seq"]] for one in server.readings[10:]) == sorted(identities[7:])
        await server.receipts(*server.readings[10:])
        await device.call("flush", ms=5000)


async def test_a_rejected_reading_needs_no_receipt(tmp_path: Path) -> None:
    async with (
        fake_server() as server,
        javascript_device(server.url, TOKEN, buffer=tmp_path / "readings.log", receipts=True) as device,
    ):
        rejected = {"index": 0, "code": "invalid_ts", "detail": "ts"}
        server.answer = lambda readings: {"status": "partial", "accepted": len(readings) - 1, "rejected": [rejected]}
        await device.call("send")
        await device.call("flush", ms=10_000)
        assert device.told == {0}


async def test_an_answer_that_promises_nothing_frees_nothing() -> None:
    async with fake_server() as server, javascript_device(server.url, TOKEN) as device:
        server.answer = lambda _: {"status": "ok"}
        await device.call("send")
        await server.received(2)
        assert (await device.call("state"))["pending"] == 1
        server.answer = lambda _: {"status": "retry", "code": "unavailable", "retryAfterMs": 1}
        await server.received(len(server.readings) + 3)
        assert (await device.call("state"))["pending"] == 1
        server.answer = lambda _: {"status": "accepted", "accepted": 1}
        await device.call("flush", ms=10_000)
    assert len({(one["ts"], one["seq"]) for one in server.readings}) == 1


async def test_a_function_that_sends_when_a_reading_is_rejected_drops_none_that_was_accepted() -> None:
    async with fake_server() as server:
        server.refusals = ["busy"]  # so that all three are sent together
        rejected = [{"index": 1, "code": "invalid_value", "detail": ""}]
        server.answer = lambda readings: (
            {"status": "partial", "rejected": rejected} if len(readings) == 3 else {"status": "accepted"}
        )
        async with javascript_device(server.url, TOKEN, maxPending=3) as device:
            await device.call("sendWhenTold")
            await device.call("send", count=3)
            await device.call("flush", ms=10_000)
            await server.received(4)
            await device.call("flush", ms=10_000)
            assert await device.call("state") == {"pending": 0, "dropped": 0}
    assert [one["value"] for one in server.readings] == [0, 1, 2, 3]
    assert device.told == {1}


async def test_a_refusal_for_now_is_not_final_however_it_comes() -> None:
    async with fake_server() as server:
        server.refusals = ["unavailable", "rate_limited", "busy"]
        async with javascript_device(server.url, TOKEN) as device:
            await device.call("send")
            await device.call("flush", ms=15_000)
    assert len(server.auth) == 4


async def test_a_retry_is_obeyed() -> None:
    times: list[float] = []

    def answer(readings: list[dict[str, Any]]) -> dict[str, Any]:
        times.append(time.monotonic())
        if len(times) < 3:
            return {"status": "retry", "code": "busy", "retryAfterMs": 1200}
        return {"status": "accepted", "accepted": len(readings)}

    async with fake_server() as server, javascript_device(server.url, TOKEN) as device:
        server.answer = answer
        await device.call("send")
        await device.call("flush", ms=20_000)
    assert len(times) == 3
    assert all(later - earlier >= 1.2 for earlier, later in pairwise(times))


async def test_commands_are_run_once_and_answered() -> None:
    async with fake_server() as server, javascript_device(server.url, TOKEN) as device:
        await device.call("send")
        await server.received(1)
        answer = await server.command(id="c0", name="identify", payload=None)
        assert answer == {"status": "failed", "detail": "this device takes no commands"}
        await device.call("commands")
        done = {"status": "done", "result": {"name": "set_rate", "payload": {"rate": 2}}}
        for _ in range(3):
            assert await server.command(id="c1", name="set_rate", payload={"rate": 2}) == done
        assert device.all_of("command") == ["set_rate"]
        failed = {"status": "failed", "detail": "out of paper"}
        assert await server.command(id="c2", name="fail", payload=None) == failed
        for number in range(1000):
            await server.command(id=f"d{number}", name="n", payload=None)
        assert len(device.all_of("command")) == 1002
        await server.command(id="d1", name="n", payload=None)
        assert len(device.all_of("command")) == 1002
        await server.command(id="c1", name="set_rate", payload=None)
        assert len(device.all_of("command")) == 1003, "the last 1,000 are kept"


async def test_a_result_may_have_16_kib_of_json() -> None:
    """A larger acknowledgement would be refused, and one above 4 MiB would end the connection again and again."""
    async with fake_server() as server, javascript_device(server.url, TOKEN) as device:
        await device.call("send")
        await server.received(1)
        await device.call("commands")
        assert (await server.command(id="c0", name="read", payload=8191))["status"] == "done"
        detail = "the result has 6291458 bytes of JSON, and may have 16384"
        assert await server.command(id="c1", name="read", payload=3 << 20) == {"status": "failed", "detail": detail}
        failed = await server.command(id="c2", name="fail_at_length", payload=5 << 20)
        assert failed == {"status": "failed", "detail": "x" * 1000}
