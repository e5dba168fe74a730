"""Receipts in a onebox: one port, the embedded broker, and a kill of everything between acknowledgement and receipt."""

import os
import signal
from pathlib import Path
from typing import Any

import aiohttp

from testing.waiting import eventually
from tests.e2e.onebox_process import demo_device, running_onebox
from tests.integration.device import connected, readings


async def test_after_a_kill_every_reading_is_listed_and_later_ones_have_receipts(tmp_path: Path) -> None:
    told: set[tuple[int, int]] = set()

    def on_stored(event: dict[str, Any]) -> None:
        told.update((ts, seq) for item in event["items"] for ts, seq in item["readings"])

    before, after = readings(0, 1000), readings(1000, 500)
    async with running_onebox("--devices", "0", data=tmp_path) as (process, url):
        device, token = await demo_device(url, tmp_path)
        async with connected(url, token, device, receipts=True) as sender:
            sender.client.on("stored", on_stored)
            for start in range(0, 1000, 50):
                await sender.send_until_accepted(before[start : start + 50])
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    assert told <= {(one["ts"], one["seq"]) for one in before}
    async with running_onebox("--devices", "0", data=tmp_path) as (_, url):
        device, token = await demo_device(url, tmp_path)
        question = {"items": [{"sensorType": "temperature", "readings": [[one["ts"], one["seq"]] for one in before]}]}

        async def all_listed() -> bool:
            async with (
                aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session,
                session.post(f"{url}/readings/stored", json=question) as answer,
            ):
                listed = {(ts, seq) for item in (await answer.json())["items"] for ts, seq in item["readings"]}
            return listed == {(one["ts"], one["seq"]) for one in before}

        async def all_told() -> bool:
            return told >= {(one["ts"], one["seq"]) for one in after}

        async with connected(url, token, device, receipts=True) as sender:
            sender.client.on("stored", on_stored)
            await sender.send_until_accepted(after)
            await eventually(all_listed, "everything acknowledged before the kill is stored")
            await eventually(all_told, "every later reading has a receipt")
