import asyncio
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import SimulatorError
from simulator.fleet import ASSEMBLE_S, FleetPlan, run_fleet
from simulator.replay.file import Replay
from simulator.tally import Tally
from tests.simulator.fake_tidegate import CUT, FakeTidegate


def plan(tidegate: FakeTidegate, **options: Any) -> FleetPlan:
    return FleetPlan(url=tidegate.url, email="a@b.example", password="correct horse", **options)


def rows(folder: Path, count: int) -> Replay:
    path = folder / "rows.csv"
    lines = [f"{1_714_564_800_000 + index // 2},{index}" for index in range(count)]
    path.write_text("\n".join(["timestamp,value", *lines]) + "\n")
    return Replay(path)


async def test_each_device_replays_every_row_once_though_connections_are_cut(
    tidegate: FakeTidegate, tmp_path: Path
) -> None:
    tidegate.script += [CUT]
    acked: list[tuple[str, str, list[tuple[int, int]]]] = []
    tally = Tally(lambda *arguments: acked.append(arguments))
    await run_fleet(plan(tidegate, devices=3, replay=rows(tmp_path, 1234)), tally=tally, stop=asyncio.Event())
    summary = tally.summary()
    assert (summary.sent, summary.acked, summary.accepted, summary.rejected) == (3702, 3702, 3702, 0)
    assert tally.expected == 3702
    assert len(tidegate.accepted) == 3702
    assert {(device, kind, *identity) for device, kind, items in acked for identity in items} == tidegate.accepted
    assert summary.reconnects == 1
    assert summary.retried > 0
    assert (tally.connected, tally.failed) == (0, 0)


async def test_a_second_run_finds_its_devices_and_replays_the_same_identities(
    tidegate: FakeTidegate, tmp_path: Path
) -> None:
    replay = rows(tmp_path, 50)
    for _ in range(2):
        await run_fleet(plan(tidegate, devices=20, replay=replay), tally=Tally(), stop=asyncio.Event())
    assert sorted(item["name"] for item in tidegate.devices.values()) == [f"sim-{n:04}" for n in range(1, 21)]
    assert sum(len(readings) for _, _, readings in tidegate.events) == 2000
    assert len(tidegate.accepted) == 1000


async def test_live_devices_send_at_their_rate_until_the_time_is_up(tidegate: FakeTidegate) -> None:
    tally = Tally()
    await run_fleet(plan(tidegate, devices=4, rate=40, batch=4, seconds=1.0), tally=tally, stop=asyncio.Event())
    assert 80 <= tally.acked <= 170
    assert tally.sent == tally.acked == len(tidegate.accepted)
    assert {len(readings) for _, _, readings in tidegate.events} == {4}


async def test_a_stop_ends_the_sending_and_waits_for_what_is_in_flight(tidegate: FakeTidegate) -> None:
    tally, stop = Tally(), asyncio.Event()
    running = asyncio.ensure_future(run_fleet(plan(tidegate, devices=2, rate=50), tally=tally, stop=stop))
    await tidegate.until(lambda: len(tidegate.events) >= 10)
    stop.set()
    await running
    assert tally.sent == tally.acked == len(tidegate.accepted)


async def test_a_device_that_is_refused_for_good_is_told_and_the_others_go_on(
    tidegate: FakeTidegate, tmp_path: Path
) -> None:
    tidegate.refusals["d2"] = deque([{"code": "revoked"}])
    tally = Tally()
    await run_fleet(plan(tidegate, devices=3, replay=rows(tmp_path, 20)), tally=tally, stop=asyncio.Event())
    assert tally.failed == 1
    assert "revoked" in tally.failures[0]
    assert tally.acked == 40


async def test_rejected_readings_are_counted(tidegate: FakeTidegate, tmp_path: Path) -> None:
    tidegate.reject_value = 7
    tally = Tally()
    await run_fleet(plan(tidegate, devices=2, replay=rows(tmp_path, 20)), tally=tally, stop=asyncio.Event())
    assert (tally.sent, tally.accepted, tally.rejected) == (40, 38, 2)


async def test_an_expired_access_token_and_a_busy_server_are_no_trouble(tidegate: FakeTidegate, tmp_path: Path) -> None:
    tidegate.busy_answers = 2
    tidegate.calls_before_expiry = 7
    tally = Tally()
    await run_fleet(plan(tidegate, devices=5, replay=rows(tmp_path, 5)), tally=tally, stop=asyncio.Event())
    assert tally.acked == 25
    assert tidegate.logins == 2


async def test_a_wrong_password_is_told_with_a_way_out(tidegate: FakeTidegate) -> None:
    tidegate.users["a@b.example"] = "another password"
    with pytest.raises(SimulatorError, match=r"a@b\.example cannot log in; check --password"):
        await run_fleet(plan(tidegate), tally=Tally(), stop=asyncio.Event())


async def test_readings_that_stay_unanswered_fail_their_device(tidegate: FakeTidegate, tmp_path: Path) -> None:
    tidegate.script += [{"status": "retry", "code": "busy", "retryAfterMs": 20_000}]
    tally = Tally()
    await run_fleet(
        plan(tidegate, devices=1, replay=rows(tmp_path, 5), flush_seconds=0.3), tally=tally, stop=asyncio.Event()
    )
    assert (tally.sent, tally.acked, tally.failed) == (5, 0, 1)


async def test_live_devices_begin_when_those_that_can_are_connected(tidegate: FakeTidegate) -> None:
    tidegate.refusals["d2"] = deque([{"code": "busy", "retryAfterMs": 300}])
    tidegate.refusals["d3"] = deque([{"code": "revoked"}])
    tally = Tally()
    async with asyncio.timeout(ASSEMBLE_S / 2):
        await run_fleet(plan(tidegate, devices=3, rate=20, seconds=0.5), tally=tally, stop=asyncio.Event())
    assert tally.failed == 1
    assert {device for device, _, _ in tidegate.events} == {"d1", "d2"}
