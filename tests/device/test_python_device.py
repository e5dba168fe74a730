"""The Python library against a server that answers as the test wants."""

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from device import BufferFailed, Command, Device, DeviceRefused
from device.buffer import Buffer
from device.commands import Commands
from device.reading import Row
from device.server import Server
from tests.device.fake_server import ISSUING, FakeServer, accepted, fake_server

NOWHERE = "http://127.0.0.1:9"


def opened(server: FakeServer, **options: Any) -> Device:
    return Device(server.url, **({"token": ISSUING.device(), "buffer": None} | options))


async def send(device: Device, *values: Any) -> None:
    for value in values:
        await device.send({"sensorType": "t", "value": value})


async def test_the_oldest_come_first_in_batches_that_grow_with_what_waits(tmp_path: Path) -> None:
    async with fake_server() as server:
        async with Device(NOWHERE, token="a.b.c", buffer=tmp_path / "b.db") as device:
            await send(device, *range(5000))
            assert device.pending == 5000
        async with opened(server, buffer=tmp_path / "b.db") as device:
            await device.flush(10)
            await send(device, -1)
            await device.flush(10)
    assert [len(event) for event in server.events] == [1000] * 5 + [1]
    assert server.values == [*range(5000), -1]
    assert [one["seq"] for event in server.events for one in event] == list(range(5001))


async def test_events_stay_below_a_mebibyte() -> None:
    async with fake_server() as server, opened(server) as device:
        for _ in range(100):
            await device.send({"value": "x" * 30_000})
        await device.flush(10)
    assert 3 < len(server.events) < 100
    assert max(sum(len(one["value"]) for one in event) for event in server.events) < 1 << 20


async def test_retry_is_obeyed_and_the_same_readings_are_sent_again() -> None:
    times: list[float] = []

    def later(readings: list[Any]) -> Any:
        times.append(time.monotonic())
        retry = {"status": "retry", "code": "busy", "retryAfterMs": 700}
        return retry if len(times) == 1 else accepted(readings)

    async with fake_server() as server, opened(server) as device:
        server.answer = later
        await send(device, 1)
        await device.flush(10)
    assert 0.7 <= times[1] - times[0] < 2
    assert server.events[0] == server.events[1]


async def test_batches_are_no_larger_than_the_limit_that_they_exceeded() -> None:
    def limited(readings: list[Any]) -> Any:
        if len(readings) > 10:
            return {"status": "retry", "code": "rate_limited", "retryAfterMs": 50, "limit": 10, "scope": "device"}
        return accepted(readings)

    async with fake_server() as server, opened(server) as device:
        server.answer = limited
        await send(device, *range(50))
        await device.flush(10)
    assert max(len(event) for event in server.events[-4:]) <= 10


@pytest.mark.parametrize("answer", [None, "yes", [], {"status": "maybe"}, {"status": "partial"}])
async def test_an_answer_that_promises_nothing_frees_nothing(answer: Any) -> None:
    async with fake_server() as server, opened(server) as device:
        server.answer = lambda readings: answer if len(server.events) == 1 else accepted(readings)
        await send(device, 1)
        await device.flush(10)
        assert server.values == [1, 1]


async def test_rejected_readings_are_told_and_the_others_of_their_batch_are_free(tmp_path: Path) -> None:
    told: list[tuple[Any, str, str]] = []

    def partly(readings: list[Any]) -> Any:
        bad = [at for at, one in enumerate(readings) if one["value"] % 2]
        rejected = [{"index": at, "code": "invalid_value", "detail": "odd"} for at in bad]
        return {"status": "partial", "accepted": len(readings) - len(bad), "rejected": rejected}

    async with fake_server() as server:
        async with Device(NOWHERE, token="a.b.c", buffer=tmp_path / "b.db") as device:
            await send(device, *range(10))
        async with opened(server, buffer=tmp_path / "b.db") as device:

            @device.on_rejected
            async def rejected(reading: Any, code: str, detail: str) -> None:
                told.append((reading["value"], code, detail))

            server.answer = partly
            await device.flush(10)
            await asyncio.sleep(0.05)
    assert told == [(value, "invalid_value", "odd") for value in (1, 3, 5, 7, 9)]
    assert len(server.events) == 1


@pytest.mark.parametrize("code", ["invalid_reading", "too_large", "batch_size"])
async def test_a_batch_that_is_rejected_as_a_whole_is_halved_until_the_fault_is_alone(
    tmp_path: Path, code: str
) -> None:
    told: list[Any] = []

    def whole(readings: list[Any]) -> Any:
        if any(one["value"] == 77 for one in readings):
            return {"status": "rejected", "code": code, "detail": "no"}
        return accepted(readings)

    async with fake_server() as server:
        async with Device(NOWHERE, token="a.b.c", buffer=tmp_path / "b.db") as device:
            await send(device, *range(200))
        async with opened(server, buffer=tmp_path / "b.db") as device:
            device.on_rejected(lambda reading, code, _: told.append((reading["value"], code)))
            server.answer = whole
            await device.flush(20)
    assert told == [(77, code)]
    assert {value for event in server.events for value in [one["value"] for one in event]} == set(range(200))


@pytest.mark.parametrize(("drop", "lost"), [("oldest", [0, 1, 2]), ("newest", [5, 6, 7])])
async def test_beyond_max_pending_readings_are_dropped_and_told(tmp_path: Path, drop: Any, lost: list[int]) -> None:
    told: list[dict[str, Any]] = []
    options = {"buffer": tmp_path / "b.db", "max_pending": 5, "drop": drop}
    async with fake_server() as server:
        async with Device(NOWHERE, token="a.b.c", **options) as device:
            device.on_dropped(told.append)
            await send(device, *range(8))
            assert (device.pending, device.dropped) == (5, 3)
        async with opened(server, buffer=tmp_path / "b.db") as device:
            await send(device, 8)
            await device.flush(10)
    assert [one["value"] for one in told] == lost
    assert server.values == [value for value in range(9) if value not in lost]
    # Dropped readings are numbered, too: the server can tell that they are missing.
    assert [one["seq"] for one in told] == lost
    assert [one["seq"] for event in server.events for one in event] == server.values


async def test_a_reading_in_flight_may_be_dropped_and_its_answer_changes_nothing() -> None:
    told: list[int] = []
    free = asyncio.Event()

    async def slowly(readings: list[Any]) -> Any:
        await free.wait()
        return accepted(readings)

    async with fake_server() as server, opened(server, max_pending=2) as device:
        device.on_dropped(lambda reading: told.append(reading["value"]))
        server.answer = slowly
        await send(device, 0, 1)
        async with asyncio.timeout(10):
            while len(server.values) < 2:
                await asyncio.sleep(0.01)
        await send(device, 2)
        assert (told, device.pending) == ([0], 2)
        free.set()
        await device.flush(10)
        assert device.pending == 0


async def test_answers_lost_with_their_connection_are_not_waited_for() -> None:
    async with fake_server() as server, opened(server) as device:
        server.answer = lambda readings: asyncio.sleep(30) if len(server.events) == 1 else accepted(readings)
        await send(device, 1)
        async with asyncio.timeout(5):
            while not server.events:
                await asyncio.sleep(0.01)
        await server.drop()
        await device.flush(8)
    assert server.values == [1, 1]


async def test_flush_times_out_and_is_at_once_done_with_an_empty_buffer() -> None:
    async with Device(NOWHERE, token="a.b.c", buffer=None) as device:
        await device.flush(0.1)
        await send(device, 1)
        with pytest.raises(TimeoutError):
            await device.flush(0.2)
        assert device.pending == 1


@pytest.mark.parametrize("code", ["unauthorized", "expired", "revoked", "forbidden", "device_required"])
async def test_a_refusal_for_good_is_raised_by_flush_and_ends_the_attempts(code: str) -> None:
    async with fake_server() as server, opened(server) as device:
        server.refuses = lambda _: code
        await send(device, 1)
        with pytest.raises(DeviceRefused) as refused:
            await device.flush(10)
        assert (refused.value.code, str(refused.value)) == (code, f"{code}: refused")
        await send(device, 2)
        await asyncio.sleep(1.5)
        assert (len(server.auths), device.pending) == (1, 2)


async def test_a_flush_ends_when_the_device_is_closed() -> None:
    async with Device(NOWHERE, token="a.b.c", buffer=None) as device:
        await send(device, 1)
        flush = asyncio.create_task(device.flush(None))
        await asyncio.sleep(0.1)
    with pytest.raises(RuntimeError, match="not open"):
        await asyncio.wait_for(flush, 3)


async def test_a_token_function_is_asked_again_after_a_refusal_and_after_its_own_failures() -> None:
    tokens = [RuntimeError("no network"), "", "", "old", "new"]

    async def token() -> str:
        one = tokens.pop(0)
        if isinstance(one, Exception):
            raise one
        return str(one)

    async with fake_server() as server, opened(server, token=token) as device:
        server.refuses = lambda token: "expired" if token == "old" else None
        await send(device, 1)
        await device.flush(15)
        assert [auth["token"] for auth in server.auths] == ["old", "new"]
        await server.drop()
        await server.connected(2)
        assert server.auths[-1]["token"] == "new"


async def test_a_token_function_that_fails_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def token() -> Any:
        return "not awaitable"

    async with opened(FakeServer(9), token=token) as device:
        await send(device, 1)
        with pytest.raises(TimeoutError):
            await device.flush(1.5)
    assert caplog.text.count("The token function failed") == 1


async def test_a_token_function_that_never_answers_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device.tokens.ANSWERS_WITHIN_S", 0.1)
    asked = 0

    async def token() -> str:
        nonlocal asked
        asked += 1
        if asked == 1:
            await asyncio.Event().wait()
        return "token"

    async with fake_server() as server, opened(server, token=token) as device:
        await send(device, 1)
        await device.flush(15)
    assert asked == 2


async def test_a_token_function_whose_fresh_token_is_refused_too_is_refused_for_good() -> None:
    asked: list[int] = []

    async def token() -> str:
        asked.append(1)
        return "bad"

    async with fake_server() as server, opened(server, token=token) as device:
        server.refuses = lambda _: "revoked"
        await send(device, 1)
        with pytest.raises(DeviceRefused, match="revoked"):
            await device.flush(10)
    assert len(asked) == 2


async def test_a_device_renews_its_own_token_and_keeps_it_beside_its_readings(tmp_path: Path) -> None:
    given = ISSUING.device()
    async with fake_server() as server:
        async with opened(server, buffer=tmp_path / "b.db", token=given) as device:
            await server.connected()
            await server.emit("auth_expiring", {"expiresAt": "2026-01-01T00:00:00.000Z"})
            async with asyncio.timeout(5):
                while not server.authenticated:
                    await asyncio.sleep(0.01)
            await send(device, 1)
            await device.flush(5)
        async with opened(server, buffer=tmp_path / "b.db", token=given):
            await server.connected(2)
        async with opened(server, buffer=tmp_path / "b.db", token=ISSUING.device(jti="other")):
            await server.connected(3)
    assert server.renewals == [f"Bearer {given}"]
    assert server.authenticated == ["renewed-1"]
    assert [auth["token"] for auth in server.auths[:2]] == [given, "renewed-1"]
    assert server.auths[2]["token"] not in (given, "renewed-1")


async def test_a_renewed_token_that_is_refused_gives_way_to_the_given_one(tmp_path: Path) -> None:
    half = ISSUING.device(iat=int(time.time()) - 3000, exp=int(time.time()) + 600)
    async with fake_server() as server, opened(server, token=half) as device:
        server.refuses = lambda token: None if token == half else "unauthorized"
        await send(device, 1)
        await device.flush(10)
    assert [auth["token"] for auth in server.auths] == ["renewed-1", half]


async def test_readings_are_sent_after_all_when_the_file_could_not_be_read_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with Device(NOWHERE, token="a.b.c", buffer=tmp_path / "b.db") as device:
        await send(device, 1)
    read, failures = Buffer.after, [BufferFailed("disk I/O error")]

    def after(buffer: Buffer, last: int, limit: int) -> list[Row]:
        if failures:
            raise failures.pop()
        return read(buffer, last, limit)

    monkeypatch.setattr(Buffer, "after", after)
    async with fake_server() as server, opened(server, buffer=tmp_path / "b.db") as device:
        await device.flush(10)
    assert server.values == [1]
    assert "disk I/O error" in caplog.text


async def test_a_command_that_a_close_has_cut_short_is_run_when_it_comes_again() -> None:
    runs: list[Command] = []
    begun = asyncio.Event()

    async def handler(command: Command) -> int:
        runs.append(command)
        begun.set()
        if len(runs) == 1:
            await asyncio.Event().wait()
        return len(runs)

    commands = Commands()
    commands.handler = handler
    event = {"id": "1", "name": "restart", "payload": None}
    first = asyncio.ensure_future(commands.answer(event))
    await begun.wait()
    await commands.close()
    await asyncio.wait((first,))
    assert first.cancelled()
    assert await commands.answer(event) == {"status": "done", "result": 2}


async def test_a_result_may_have_16_kib_of_json_in_utf_8(caplog: pytest.LogCaptureFixture) -> None:
    """A larger acknowledgement would be refused, and one above 4 MiB would end the connection again and again."""
    caplog.set_level(logging.CRITICAL, logger="device")  # pytest-xdist cannot pass on what is no UTF-8
    async with fake_server() as server, opened(server) as device:
        await server.connected()
        device.on_command(lambda command: "й" * command.payload)
        for size, status in ((8191, "done"), (8192, "failed"), (3 << 20, "failed")):
            answer = await server.call("command", {"id": f"c{size}", "name": "read", "payload": size})
            assert answer["status"] == status
        assert answer["detail"] == "the result has 6291458 bytes of JSON, and may have 16384"

        @device.on_command
        def fail(_: Command) -> None:
            raise OSError(b"\xff".decode(errors="surrogateescape") * 5000)

        answer = await server.call("command", {"id": "f", "name": "fail"})
        assert answer == {"status": "failed", "detail": "OSError: " + "?" * 991}


async def test_a_command_is_run_once_and_answered_as_often_as_it_comes() -> None:
    ran: list[Command] = []
    async with fake_server() as server, opened(server) as device:
        await server.connected()
        command = {"id": "c1", "name": "set_rate", "payload": {"rate": 2}}
        assert (await server.call("command", command))["status"] == "failed"

        @device.on_command
        async def run(command: Command) -> Any:
            ran.append(command)
            if command.name == "fail":
                raise ValueError("no such rate")
            return object() if command.name == "odd" else {"rate": command.payload["rate"]}

        for _ in range(2):
            answer = await server.call("command", command | {"id": "c2"})
            assert answer == {"status": "done", "result": {"rate": 2}}
        assert ran == [Command("c2", "set_rate", {"rate": 2})]
        failed = await server.call("command", {"id": "c3", "name": "fail"})
        assert failed == {"status": "failed", "detail": "ValueError: no such rate"}
        assert (await server.call("command", {"id": "c4", "name": "odd"}))["status"] == "failed"
        assert (await server.call("command", "no object"))["status"] == "failed"
        device.on_command(lambda command: command.name)
        assert (await server.call("command", {"id": "c5", "name": "sync"}))["result"] == "sync"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"url": "127.0.0.1"}, "url"),
        ({"url": "ws://here"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "http://here:99999"}, "url"),
        ({"url": None}, "url"),
        ({"token": None}, "token"),
        ({"token": ""}, "token"),
        ({"token": 5}, "token"),
        ({"drop": "all"}, "drop"),
        ({"max_pending": 0}, "max_pending"),
        ({"max_pending": "many"}, "max_pending"),
        ({"max_pending": True}, "max_pending"),
        ({"keep_stored": "600"}, "keep_stored"),
        ({"keep_stored": -1}, "keep_stored"),
        ({"keep_stored": float("nan")}, "keep_stored"),
        ({"receipts": "yes"}, "receipts"),
        ({"buffer": ""}, "buffer"),
        ({"buffer": 5}, "buffer"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Device(**{"url": "http://here", "token": "t", **options})


@pytest.mark.parametrize("more", ["/", "/docs", "/dashboard/?range=1d#all"])
async def test_what_follows_the_origin_in_an_address_is_left_out(more: str) -> None:
    """As in the JavaScript library; else a device would connect, and neither renew its token nor get receipts."""
    half = ISSUING.device(iat=int(time.time()) - 3000, exp=int(time.time()) + 600)
    async with fake_server() as server, Device(server.url + more, token=half, buffer=None) as device:
        await device.send({"value": 1})
        await device.flush()
        assert server.renewals
        assert device.pending == 0


async def test_a_device_that_is_not_open_says_so() -> None:
    device = Device(NOWHERE, token="a.b.c", buffer=None)
    with pytest.raises(RuntimeError, match="not open"):
        await device.send({"value": 1})


async def test_only_what_waits_is_synchronised_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[float] = []
    sync = Buffer.sync

    def counted(buffer: Buffer) -> None:
        syncs.append(time.monotonic())
        sync(buffer)

    monkeypatch.setattr(Buffer, "sync", counted)

    async def send_for(device: Device, seconds: float) -> None:
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            await send(device, 1)
            await asyncio.sleep(0.05)

    async with fake_server() as server, opened(server, buffer=tmp_path / "b.db") as device:
        async with asyncio.timeout(60):
            # On a busy machine some of it is not acknowledged at once; and every ten seconds it is time.
            while True:
                syncs.clear()
                await send_for(device, 2.5)
                if not syncs:
                    break
        server.answer = lambda _: asyncio.sleep(60, {})
        await device.flush(10)
        syncs.clear()
        began = time.monotonic()
        await send_for(device, 3)
        assert 2 <= len(syncs) <= 6
        # As this machine may be busy: promised is one.
        assert syncs[0] - began < 2


async def test_a_device_that_could_not_begin_can_be_entered_again(tmp_path: Path) -> None:
    made: list[str] = []

    def transport(url: str) -> Server:
        made.append(url)
        if len(made) == 1:
            raise OSError("no transport")
        return Server(url)

    async with fake_server() as server:
        device = opened(server, buffer=tmp_path / "b.db", transport=transport)
        with pytest.raises(OSError, match="no transport"):
            await device.__aenter__()
        async with device:
            await send(device, 1)
            await device.flush(10)
    assert server.values == [1]
