"""Rows that name their devices are sent over HTTP as their owner, and resent until answered."""

import asyncio
from pathlib import Path

from simulator.fleet import FleetPlan, run_fleet
from simulator.replay.file import Replay
from simulator.run_stats import RunStats
from tests.simulator.fake_tidegate import CUT, DROP, FakeTidegate
from tests.simulator.plans import fleet_plan
from tests.simulator.replay.csv_files import EXPORT_HEADER, RECEIVED_AT, csv_file


def export(folder: Path, count: int, *, devices: int = 1, tags: str = "") -> Replay:
    lines = [
        f"dev-{number % devices},t,2024-05-01T00:00:00.{number % 1000:03}Z,"
        f"{2**52 + number},{number},{RECEIVED_AT},,,{tags},"
        for number in range(count)
    ]
    return Replay(csv_file(folder, EXPORT_HEADER, *lines))


async def replayed(plan: FleetPlan) -> RunStats:
    stats = RunStats()
    async with asyncio.timeout(30):
        await run_fleet(plan, stats=stats, stop=asyncio.Event())
    return stats


async def test_each_row_is_sent_once_as_its_device_and_nothing_is_registered(
    tidegate: FakeTidegate, tmp_path: Path
) -> None:
    stats = await replayed(fleet_plan(tidegate, devices=7, replay=export(tmp_path, 2500, devices=3)))
    assert (stats.sent, stats.accepted, stats.rejected, stats.retried, stats.failed) == (2500, 2500, 0, 0, 0)
    assert (stats.expected, stats.devices) == (2500, 3)
    assert len(tidegate.accepted) == 2500
    assert {device for device, *_ in tidegate.accepted} == {"dev-0", "dev-1", "dev-2"}
    assert {kind for _, kind, _ in tidegate.events} == {"http"}
    assert {item["receivedAt"] for _, _, items in tidegate.events for item in items} == {RECEIVED_AT}
    assert not tidegate.devices


async def test_what_is_not_answered_is_sent_again_the_same(tidegate: FakeTidegate, tmp_path: Path) -> None:
    tidegate.http_script += [CUT, 503, 429]
    stats = await replayed(fleet_plan(tidegate, replay=export(tmp_path, 1500)))
    assert (stats.sent, stats.accepted) == (1500, 1500)
    assert [len(items) for _, _, items in tidegate.events] == [1000, 1000, 1000, 1000, 500]
    assert len(tidegate.accepted) == 1500


async def test_an_access_token_that_expires_is_replaced(tidegate: FakeTidegate, tmp_path: Path) -> None:
    tidegate.calls_before_expiry = 3
    stats = await replayed(fleet_plan(tidegate, replay=export(tmp_path, 3500)))
    assert (stats.sent, stats.accepted, tidegate.logins) == (3500, 3500, 2)


async def test_readings_that_are_rejected_are_counted_as_such(tidegate: FakeTidegate, tmp_path: Path) -> None:
    tidegate.reject_value = 7
    stats = await replayed(fleet_plan(tidegate, replay=export(tmp_path, 20)))
    assert (stats.sent, stats.accepted, stats.rejected) == (20, 19, 1)


async def test_a_refused_device_is_recorded_and_the_others_go_on(tidegate: FakeTidegate, tmp_path: Path) -> None:
    tidegate.http_script += [403]
    stats = await replayed(fleet_plan(tidegate, replay=export(tmp_path, 3000, devices=2)))
    assert (stats.accepted, stats.failed) == (1500, 1)
    assert "403" in stats.failures[0]
    assert sum(device == "dev-0" for device, _, _ in tidegate.events) == 1


async def test_large_readings_are_sent_in_requests_that_a_gateway_takes(tidegate: FakeTidegate, tmp_path: Path) -> None:
    tags = '"{' + ",".join(f'""t{number}"":""{"x" * 250}""' for number in range(16)) + '}"'
    stats = await replayed(fleet_plan(tidegate, replay=export(tmp_path, 900, tags=tags)))
    assert (stats.accepted, stats.failed) == (900, 0)
    assert 1 < len(tidegate.events) < 20


async def test_a_stop_waits_for_readings_in_flight_and_reports_what_stays_unanswered(
    tidegate: FakeTidegate, tmp_path: Path
) -> None:
    tidegate.http_script += [202, DROP]
    stats, stop = RunStats(), asyncio.Event()
    chosen = fleet_plan(tidegate, replay=export(tmp_path, 5000), stop_flush_seconds=0.3)
    running = asyncio.ensure_future(run_fleet(chosen, stats=stats, stop=stop))
    await tidegate.until(lambda: len(tidegate.events) == 2)
    stop.set()
    async with asyncio.timeout(10):
        await running
    assert (stats.sent, stats.accepted, stats.failed) == (2000, 1000, 1)
    assert "1000 readings were not acknowledged within 0.3 s" in stats.failures[0]
