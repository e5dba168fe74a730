"""Both libraries with receipts, whose receipts are all lost: they ask the real reader, also after a restore.

Several processes on the embedded broker have no receipts: it broadcasts within one process.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from device import Device, receipts, recheck
from testing.waiting import eventually
from tests.device.javascript_process import javascript_device
from tests.device.python_process import System, system
from tests.integration.services import started
from tests.proxy.name_server import NameServer
from tests.proxy.nginx import running_nginx

COUNT = 50
LONG_MS = 600_000


@asynccontextmanager
async def served(folder: Path, mongodb: tuple[str, str]) -> AsyncIterator[tuple[System, str]]:
    """Run everything behind one URL."""
    async with (
        system(folder, mongodb) as here,
        started("gateway", **here.settings) as gateway,
        started("reader", **here.settings, READINGS_URL=mongodb[0], READINGS_DATABASE=mongodb[1]) as reader,
        NameServer.serving() as names,
    ):
        names.addresses |= {f"{name}.test": ["127.0.0.1"] for name in ("auth", "gateway", "reader")}
        ports = {"auth": here.auth.port, "gateway": gateway.port, "reader": reader.port}
        async with running_nginx(folder, names, **ports) as proxy:
            yield here, proxy.url


def lose(here: System, device: str, values: Iterable[int]) -> None:
    """Remove readings, as a restore from an older backup does."""
    url, database = here.mongodb
    with MongoClient[dict[str, Any]](url) as client:
        client[database]["readings"].delete_many({"_id.device": device, "value": {"$in": list(values)}})


async def all_there(here: System, device: str) -> None:
    async def reached() -> bool:
        return here.values(device) == Counter(range(COUNT))

    await eventually(reached, f"{COUNT} readings are stored, each once", 60)


async def test_the_python_library_asks_the_reader(
    tmp_path: Path, mongodb_database: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "ASK_AFTER_S", 0.5)
    monkeypatch.setattr(receipts, "NO_ANSWER_S", 0.5)
    monkeypatch.setattr(recheck, "FIRST_AFTER_S", 0.1)
    async with served(tmp_path, mongodb_database) as (here, url):
        name, token = await here.device()
        buffer = tmp_path / "readings.db"
        async with Device(url, token=token, buffer=buffer, receipts=True, keep_stored=2) as device:
            for value in range(COUNT):
                await device.send({"value": value})
            await device.flush(30)
            assert here.values(name) == Counter(range(COUNT)), "what has left the buffer is stored"
            lose(here, name, range(20, COUNT))
            await all_there(here, name)
            await device.flush(30)


async def test_the_javascript_library_asks_the_reader(tmp_path: Path, mongodb_database: tuple[str, str]) -> None:
    async with served(tmp_path, mongodb_database) as (here, url):
        name, token = await here.device()
        async with javascript_device(url, token, buffer=tmp_path / "readings.log", receipts=True) as device:
            await device.call("send", count=COUNT)
            await all_there(here, name)
            assert (await device.call("state"))["pending"] == COUNT
            await device.call("wait", ms=31_000)
            await device.until_pending(0)
            lose(here, name, range(20, COUNT))
            await device.call("wait", ms=LONG_MS)
            await all_there(here, name)
            await device.call("wait", ms=LONG_MS)
            await device.until_pending(0)
