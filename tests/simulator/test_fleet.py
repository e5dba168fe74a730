import asyncio
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest

from simulator.errors import SimulatorError
from simulator.fleet import ASSEMBLE_S, run_fleet
from simulator.replay.file import Replay
from simulator.run_stats import RunStats
from tests.simulator.fake_tidegate import CUT, FakeTidegate
from tests.simulator.plans import fleet_plan


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
    stats = RunStats(lambda *arguments: acked.append(arguments))
    await run_fleet(fleet_plan(tidegate, devices=3, replay=rows(tmp_path, 1234)), stats=stats, stop=asyncio.Event())
    summary = stats.summary()
    assert (summary.sent, summary.acked, summary.accepted, summary.rejected) == (3702, 3702, 3702, 0)
    assert stats.expected == 3702
    assert len(tidegate.accepted) == 3702
    assert {(device, kind, *identity) for device, kind, items in acked for identity in items} == tidegate.accepted
    assert summary.reconnects == 1
    assert summary.retried > 0
    assert (stats.connected, stats.failed) == (0, 0)


async def test_a_second_run_finds_its_devices_and_replays_the_same_identities(
    tidegate: FakeTidegate, tmp_path: Path
) -> None:
    replay = rows(tmp_path, 50)
    for _ in range(2):
        await run_fleet(fleet_plan(tidegate, devices=20, replay=replay), stats=RunStats(), stop=asyncio.Event())
    assert sorted(item["name"] for item in tidegate.devices.values()) == [f"sim-{n:04}" for n in range(1, 21)]
    assert sum(len(readings) for _, _, readings in tidegate.events) == 2000
    assert len(tidegate.accepted) == 1000


async def test_live_devices_send_at_their_rate_until_the_time_is_up(tidegate: FakeTidegate) -> None:
    stats = RunStats()
    await run_fleet(fleet_plan(tidegate, devices=4, rate=40, batch=4, seconds=1.0), stats=stats, stop=asyncio.Event())
    assert 80 <= stats.acked <= 170
    assert stats.sent == stats.acked == len(tidegate.accepted)
    assert {len(readings) for _, _, readings in tidegate.events} == {4}


async def test_a_stop_ends_the_sending_and_waits_for_what_is_in_flight(tidegate: FakeTidegate) -> None:
    stats, stop = RunStats(), asyncio.Event()
    running = asyncio.ensure_future(run_fleet(fleet_plan(tidegate, devices=2, rate=50), stats=stats, stop=stop))
    await tidegate.until(lambda: len(tidegate.events) >= 10)
    stop.set()
    await running
    assert stats.sent == stats.acked == len(tidegate.accepted)


async def test_a_permanently_refused_device_is_recorded_and_the_others_go_on(
    tidegate: FakeTidegate, tmp_path: Path
) -> None:
    tidegate.refusals["d2"] = deque([{"code": "revoked"}])
    stats = RunStats()
    await run_fleet(fleet_plan(tidegate, devices=3, replay=rows(tmp_path, 20)), stats=stats, stop=asyncio.Event())
    assert stats.failed == 1
    assert "revoked" in stats.failures[0]
    assert stats.acked == 40


async def test_rejected_readings_are_counted(tidegate: FakeTidegate, tmp_path: Path) -> None:
    tidegate.reject_value = 7
    stats = RunStats()
    await run_fleet(fleet_plan(tidegate, devices=2, replay=rows(tmp_path, 20)), stats=stats, stop=asyncio.Event())
    assert (stats.sent, stats.accepted, stats.rejected) == (40, 38, 2)


async def test_an_expired_access_token_and_a_busy_server_are_handled(tidegate: FakeTidegate, tmp_path: Path) -> None:
    tidegate.busy_answers = 2
    tidegate.calls_before_expiry = 7
    stats = RunStats()
    await run_fleet(fleet_plan(tidegate, devices=5, replay=rows(tmp_path, 5)), stats=stats, stop=asyncio.Event())
    assert stats.acked == 25
    assert tidegate.logins == 2


async def test_a_wrong_password_is_reported_with_a_hint(tidegate: FakeTidegate) -> None:
    tidegate.users["a@b.example"] = "another password"
    with pytest.raises(SimulatorError, match=r"a@b\.example cannot log in; check --password"):
        await run_fleet(fleet_plan(tidegate), stats=RunStats(), stop=asyncio.Event())


async def test_a_password_that_no_new_account_may_have_is_tried_and_reported(tidegate: FakeTidegate) -> None:
    tidegate.users["a@b.example"] = "another password"
    plan = replace(fleet_plan(tidegate), password="short")
    with pytest.raises(SimulatorError, match=r"cannot log in; check --password; .*The password cannot be used"):
        await run_fleet(plan, stats=RunStats(), stop=asyncio.Event())
    tidegate.users["a@b.example"] = "short"
    await run_fleet(replace(plan, seconds=0.1), stats=RunStats(), stop=asyncio.Event())
    assert tidegate.logins == 1


async def test_readings_that_stay_unanswered_fail_their_device(tidegate: FakeTidegate, tmp_path: Path) -> None:
    tidegate.script += [{"status": "retry", "code": "busy", "retryAfterMs": 20_000}]
    stats = RunStats()
    await run_fleet(
        fleet_plan(tidegate, devices=1, replay=rows(tmp_path, 5), flush_seconds=0.3), stats=stats, stop=asyncio.Event()
    )
    assert (stats.sent, stats.acked, stats.failed) == (5, 0, 1)


async def test_live_devices_begin_when_those_that_can_are_connected(tidegate: FakeTidegate) -> None:
    tidegate.refusals["d2"] = deque([{"code": "busy", "retryAfterMs": 300}])
    tidegate.refusals["d3"] = deque([{"code": "revoked"}])
    stats = RunStats()
    async with asyncio.timeout(ASSEMBLE_S / 2):
        await run_fleet(fleet_plan(tidegate, devices=3, rate=20, seconds=0.5), stats=stats, stop=asyncio.Event())
    assert stats.failed == 1
    assert {device for device, _, _ in tidegate.events} == {"d1", "d2"}
