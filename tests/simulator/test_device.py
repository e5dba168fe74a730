import asyncio
import time
from collections import deque
from typing import Any

import pytest

from simulator.device import DeviceClient
from simulator.errors import DeviceRefusedError, UnavailableError
from simulator.reading import DeviceReading, Identity, ReadingOutcome
from tests.simulator.fake_tidegate import CUT, DROP, FakeTidegate

T0 = 1_760_000_000_000


class Settled:
    def __init__(self) -> None:
        self.calls: list[tuple[str, str, list[Identity], ReadingOutcome, float]] = []

    def __call__(
        self, device: str, kind: str, identities: list[Identity], outcome: ReadingOutcome, latency_s: float
    ) -> None:
        self.calls.append((device, kind, identities, outcome, latency_s))

    def of(self, outcome: ReadingOutcome) -> list[Identity]:
        return [identity for call in self.calls if call[3] is outcome for identity in call[2]]


def sample_readings(count: int, start: int = 0) -> list[DeviceReading]:
    return [DeviceReading("temperature", 20.5, T0 + start + index) for index in range(count)]


def device(tidegate: FakeTidegate, settled: Settled | None = None, **options: Any) -> DeviceClient:
    return DeviceClient(tidegate.url, "token/d1/0", "d1", on_settled=settled or Settled(), **options)


async def test_one_reading_is_a_reading_event_and_several_are_a_readings_event(tidegate: FakeTidegate) -> None:
    settled = Settled()
    async with device(tidegate, settled) as client:
        await client.send(sample_readings(1))
        await client.send(sample_readings(3, 10))
        await client.flush()
    assert [(name, len(readings)) for _, name, readings in tidegate.events] == [("reading", 1), ("readings", 3)]
    assert len(tidegate.accepted) == 4
    assert settled.of(ReadingOutcome.ACCEPTED) == [(T0, 0), (T0 + 10, 0), (T0 + 11, 0), (T0 + 12, 0)]
    assert all(call[:2] == ("d1", "temperature") and 0 < call[4] < 10 for call in settled.calls)


async def test_a_reading_whose_connection_is_cut_is_sent_again_with_the_same_identity(tidegate: FakeTidegate) -> None:
    tidegate.script.append(CUT)
    settled, changes, retried = Settled(), list[bool](), list[int]()
    async with device(tidegate, settled, on_connection=changes.append, on_retried=retried.append) as client:
        await client.send(sample_readings(5))
        await client.flush()
    assert tidegate.identities(0) == tidegate.identities(1)
    assert len(tidegate.events) == 2
    assert len(settled.of(ReadingOutcome.ACCEPTED)) == 5
    assert (changes, retried) == ([True, False, True, False], [5])


async def test_a_reading_without_an_acknowledgement_is_sent_again_with_the_same_identity(
    tidegate: FakeTidegate,
) -> None:
    tidegate.script.append(DROP)
    settled = Settled()
    async with device(tidegate, settled, ack_timeout_s=0.3) as client:
        await client.send(sample_readings(2))
        await client.send(sample_readings(2, 10))  # its answer shows that the connection lives
        await client.flush()
    assert tidegate.connects == 1
    assert tidegate.identities(0) == tidegate.identities(2)
    assert len(settled.of(ReadingOutcome.ACCEPTED)) == 4


async def test_a_silent_server_gets_a_new_connection(tidegate: FakeTidegate) -> None:
    tidegate.script.append(DROP)
    async with device(tidegate, ack_timeout_s=0.3) as client:
        await client.send(sample_readings(2))
        await client.flush()
    assert tidegate.connects == 2
    assert tidegate.identities(0) == tidegate.identities(1)


async def test_a_retry_is_sent_again_not_before_the_time_that_it_names(tidegate: FakeTidegate) -> None:
    tidegate.script += [{"status": "retry", "code": "busy", "retryAfterMs": 300}] * 2
    settled, sent = Settled(), list[int]()
    async with device(tidegate, settled, on_sent=sent.append) as client:
        await client.send(sample_readings(2))
        await client.flush()
    assert tidegate.identities(0) == tidegate.identities(1) == tidegate.identities(2)
    assert settled.calls[0][4] >= 0.6
    assert sent == [2]


async def test_an_unreadable_acknowledgement_settles_nothing(
    tidegate: FakeTidegate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulator.send_window.UNKNOWN_ACK_RETRY_S", 0.1)
    tidegate.script += [{"status": "fine"}, {}, {"status": 7}]
    async with device(tidegate) as client:
        await client.send(sample_readings(1))
        await client.flush()
    assert len(tidegate.events) == 4


async def test_rejected_readings_are_settled_as_rejected_and_not_sent_again(tidegate: FakeTidegate) -> None:
    tidegate.script.append({"status": "rejected", "code": "invalid_reading", "detail": "no"})
    tidegate.reject_value = -1
    settled = Settled()
    async with device(tidegate, settled) as client:
        await client.send(sample_readings(2))
        await client.send([DeviceReading("temperature", -1, T0 + 10), DeviceReading("temperature", 1, T0 + 11)])
        await client.flush()
    assert len(tidegate.events) == 2
    assert settled.of(ReadingOutcome.REJECTED) == [(T0, 0), (T0 + 1, 0), (T0 + 10, 0)]
    assert settled.of(ReadingOutcome.ACCEPTED) == [(T0 + 11, 0)]


async def test_send_waits_while_the_buffer_is_full(tidegate: FakeTidegate) -> None:
    tidegate.script += [DROP] * 2
    async with device(tidegate, max_unacked=10, window=2) as client:
        await client.send(sample_readings(10))
        blocked = asyncio.ensure_future(client.send(sample_readings(1, 100)))
        await tidegate.until(lambda: len(tidegate.events) == 1)
        assert not blocked.done()
        assert client.unacked == 10
        tidegate.script.clear()
        tidegate.cut_all()
        await blocked
        await client.flush()
    assert len(tidegate.accepted) == 11


async def test_no_more_events_than_the_window_are_in_flight(tidegate: FakeTidegate) -> None:
    tidegate.script += [DROP] * 3
    async with device(tidegate, window=3) as client:
        for start in range(10):
            await client.send(sample_readings(1, start))
        await tidegate.until(lambda: len(tidegate.events) == 3)
        tidegate.cut_all()
        await client.flush()
    assert len(tidegate.events) == 13
    assert len(tidegate.accepted) == 10


async def test_large_sends_are_cut_into_events_that_the_gateway_takes(tidegate: FakeTidegate) -> None:
    texts = [DeviceReading("log", "\N{SNOWMAN}" * 256, T0 + index) for index in range(2300)]
    async with device(tidegate) as client:
        await client.send(texts[:1300])
        await client.send(texts[1300:])
        await client.flush()
    assert max(len(readings) for _, _, readings in tidegate.events) <= 1000
    assert len(tidegate.accepted) == 2300


async def test_it_connects_again_after_refusals_that_pass(tidegate: FakeTidegate) -> None:
    tidegate.refusals["d1"] = deque(
        {"code": code, "retryAfterMs": 10} for code in ("unavailable", "rate_limited", "busy")
    )
    async with device(tidegate) as client:
        await client.send(sample_readings(1))
        await client.flush()
    assert tidegate.connects == 4


async def test_it_reconnects_after_a_refused_upgrade_and_not_before_the_requested_delay(
    tidegate: FakeTidegate,
) -> None:
    tidegate.not_upgraded += [2, 0]
    async with device(tidegate) as client:
        started = time.monotonic()
        await client.send(sample_readings(1))
        await client.flush()
    assert time.monotonic() - started >= 2
    assert tidegate.connects == 3


async def test_it_reconnects_promptly_when_its_socket_is_closed_temporarily(tidegate: FakeTidegate) -> None:
    tidegate.closed_temporarily += ["unavailable", "rate_limited"]
    async with device(tidegate) as client:
        started = time.monotonic()
        await client.send(sample_readings(1))
        await client.flush()
    # Two waits of 0.8 s at most; to wait for what will not come would take 10 s.
    assert time.monotonic() - started < 8
    assert tidegate.connects == 3


@pytest.mark.parametrize("code", ["unauthorized", "expired", "revoked", "forbidden", "device_required"])
async def test_a_permanent_refusal_is_raised_to_the_sender(tidegate: FakeTidegate, code: str) -> None:
    tidegate.refusals["d1"] = deque([{"code": code}] * 10)
    async with device(tidegate) as client:
        await client.send(sample_readings(1))
        with pytest.raises(DeviceRefusedError) as refused:
            await client.flush()
        with pytest.raises(DeviceRefusedError):
            await client.send(sample_readings(1))
    assert refused.value.code == code
    assert tidegate.connects == 1


async def test_a_token_that_has_expired_is_replaced_by_a_fresh_one(tidegate: FakeTidegate) -> None:
    tokens = iter(["token/d1/0", "token/d1/1"])

    async def fetch() -> str:
        return next(tokens)

    async with DeviceClient(tidegate.url, fetch, "d1") as client:
        await client.send(sample_readings(1))
        await client.flush()
        tidegate.refusals["d1"] = deque([{"code": "expired"}])
        tidegate.cut_all()
        await client.send(sample_readings(1, 5))
        await client.flush()
    assert next(tokens, None) is None
    assert len(tidegate.accepted) == 2


async def test_a_token_that_cannot_be_fetched_is_fetched_again(tidegate: FakeTidegate) -> None:
    tries = 0

    async def fetch() -> str:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise UnavailableError("not now")
        return "token/d1/0"

    async with DeviceClient(tidegate.url, fetch, "d1") as client:
        await client.send(sample_readings(1))
        await client.flush()
    assert tries == 3


async def test_a_token_that_runs_out_is_renewed_in_place(tidegate: FakeTidegate) -> None:
    tokens = iter(["token/d1/0", "token/d1/1"])
    renewed = asyncio.get_running_loop().create_future()

    async def fetch() -> str:
        return next(tokens)

    async def authenticate(_: str, payload: dict[str, str]) -> None:
        renewed.set_result(payload)

    tidegate.sio.on("authenticate", authenticate)
    async with DeviceClient(tidegate.url, fetch, "d1") as client:
        await client.send(sample_readings(1))
        await client.flush()
        await tidegate.sio.emit("auth_expiring", {"expiresAt": "2026-01-01T00:00:00.000Z"})
        assert await asyncio.wait_for(renewed, 5) == {"token": "token/d1/1"}
    assert tidegate.connects == 1


async def test_it_waits_for_a_server_that_is_not_running_yet_and_leaves_no_task_behind() -> None:
    before = asyncio.all_tasks()
    fake = FakeTidegate()
    async with fake.serving():
        url = fake.url
    async with DeviceClient(url, "token/d1/0", "d1") as client:
        await client.send(sample_readings(1))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await client.flush()
    assert asyncio.all_tasks() == before
