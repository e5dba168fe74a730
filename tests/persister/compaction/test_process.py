"""`python -m persister compact` and `unseal` as processes: killed at each step, stopped by signals, run by operators.

Blocks and pieces have their real sizes here.
"""

import asyncio
import json
import os
import platform
import re
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from persister import database_command
from persister.compaction import command
from runtime.mongodb import mongodb_client
from storage.places.names import BLOCKS, PIECES, sealed_name
from storage.places.state import STATE
from testing.servers.ports import free_port
from testing.waiting import eventually
from tests.persister.compaction.world import POINTS, World, reading

Mongo = tuple[str, str]
# That glibc reserves for each arena of a thread.
HEAP = 64 << 20


async def started(mongo: Mongo, *arguments: str, **variables: str) -> Process:
    environment = {
        "PATH": os.environ["PATH"],
        "READINGS_URL": mongo[0],
        "READINGS_DATABASE": mongo[1],
        "OPS_PORT": "0",
        "COMPACT_CORES": "8",
        **variables,
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "persister", *arguments), env=environment, stdout=PIPE, stderr=PIPE
    )


async def ran(mongo: Mongo, *arguments: str, **variables: str) -> tuple[int | None, str, str]:
    process = await started(mongo, *arguments, **variables)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def fill(world: World) -> None:
    """Give one series blocks, with late readings, and others pieces."""
    at = world.number * 9000
    await world.store(reading("device-0", at + ts, ts / 4) for ts in range(9000))
    await world.store(reading("device-0", ts, 2, seq=world.number + 1) for ts in range(at // 2, at // 2 + 3000))
    await world.store(reading(f"device-{1 + ts % 20:02}", at + ts, ts) for ts in range(1000))
    await world.seal()


async def test_killed_at_each_step_and_started_again(mongodb_database: Mongo) -> None:
    async with mongodb_client(mongodb_database[0], name="test", timeout_s=20) as client:
        world = World(client[mongodb_database[1]])
        await fill(world)
        assert (await ran(mongodb_database, "compact", "--all"))[0] == 0
        for point in POINTS:
            await fill(world)
            armed = {"TIDEGATE_FAILPOINT": f"{point}:1"}
            code, _, err = await ran(mongodb_database, "compact", "--all", **armed)
            assert code == -signal.SIGKILL, err
            assert await world.read() == world.model, point
            await world.expire_lease()
        code, out, err = await ran(mongodb_database, "compact", "--all", "--json")
        assert code == 0, err
        assert json.loads(out)["left"] == []
        assert await world.read() == world.model
        assert await world.garbage() == (0, 0)
        state = await world.database[BLOCKS].find_one({"_id": STATE})
        assert state["waiting"] == []


async def test_all_seals_what_is_there_and_says_what_it_did(mongodb_database: Mongo) -> None:
    async with mongodb_client(mongodb_database[0], name="test", timeout_s=20) as client:
        world = World(client[mongodb_database[1]])
        await world.store(reading("device-0", ts, ts / 4) for ts in range(10_000))
        code, out, err = await ran(mongodb_database, "compact", "--all", "--json")
        assert code == 0, err
        summary = json.loads(out)
        assert (summary["collections"], summary["readings"], summary["repeats"]) == (1, 10_000, 0)
        assert summary["blocks"] == 2
        assert await world.read() == world.model
        assert await world.count("readings") == 0
        assert json.loads((await ran(mongodb_database, "compact", "--all", "--json"))[1])["collections"] == 0
        code, out, _ = await ran(mongodb_database, "unseal")
        assert (code, out) == (0, "10,000 readings are back in `readings`; 2 collections were removed.\n")
        assert await world.count("readings") == 10_000
        assert await world.read() == world.model


async def test_a_signal_ends_it_soon_with_the_position_saved(mongodb_database: Mongo) -> None:
    async with mongodb_client(mongodb_database[0], name="test", timeout_s=20) as client:
        world = World(client[mongodb_database[1]])
        await world.store(reading(f"device-{at % 400:03}", at, at) for at in range(60_000))
        await world.seal()
        port = free_port()
        # So slow that it is in the middle when the signal comes.
        process = await started(mongodb_database, "compact", OPS_PORT=str(port), COMPACT_CORES="0.02")

        async def has_pieces() -> bool:
            return await world.count(PIECES) > 0

        await eventually(has_pieces, "pieces")
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            async with session.get("/readyz") as ready:
                assert (ready.status, (await ready.json())["checked"]) == (200, ["mongodb", "sealed collections"])
            async with session.get("/metrics") as metrics:
                assert "tidegate_compactor_readings_total" in await metrics.text()
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
        assert process.returncode == 0, err
        assert time.monotonic() - asked < 5
        state = await world.database[BLOCKS].find_one({"_id": STATE})
        assert state["compaction"]["done"] is not None
        assert "holder" not in state["compaction"]
        assert sealed_name(1) in await world.database.list_collection_names()
        assert await world.read() == world.model


async def test_readiness_names_what_was_given_up(mongodb_database: Mongo) -> None:
    async with mongodb_client(mongodb_database[0], name="test", timeout_s=20) as client:
        world = World(client[mongodb_database[1]])
        await world.store([reading("device-0", 1, 1)])
        await world.database["readings"].insert_one({"_id": "zzz"})
        await world.seal()
        code, _, err = await ran(mongodb_database, "compact", "--all")
        assert code == 1
        assert err.endswith("These failed three times and stay where they are, readable: 1\n")
        port = free_port()
        process = await started(mongodb_database, "compact", OPS_PORT=str(port))

        async def is_told() -> bool:
            try:
                async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/readyz") as ready:
                    return "readable where they are: 1" in await ready.text()
            except aiohttp.ClientError:
                return False

        await eventually(is_told, "readiness")
        process.terminate()
        await process.communicate()


@pytest.mark.parametrize("arguments", [("compact", "--everything"), ("unseal", "now")])
async def test_a_wrong_command_line_changes_nothing(mongodb_database: Mongo, arguments: tuple[str, ...]) -> None:
    assert (await ran(mongodb_database, *arguments))[0] == 2


@pytest.mark.parametrize("arguments", [("unseal", "--yes"), ("compact", "--all"), ("compact",)])
async def test_wrong_settings_are_reported(mongodb_database: Mongo, arguments: tuple[str, ...]) -> None:
    code, _, err = await ran(mongodb_database, *arguments, COMPACT_CORES="0")
    assert code == 2
    assert "COMPACT_CORES" in err
    away = f"mongodb://127.0.0.1:{free_port()}/?readPreference=secondaryPreferred"
    code, _, err = await ran((away, mongodb_database[1]), *arguments)
    assert (code, err) == (
        2,
        "READINGS_URL has readPreference=secondaryPreferred, but readings are read from the primary only\n",
    )


async def test_a_signal_ends_it_in_order_while_mongodb_is_away() -> None:
    port = free_port()
    process = await started((f"mongodb://127.0.0.1:{free_port()}/", "tidegate"), "compact", OPS_PORT=str(port))

    async def is_alive() -> bool:
        with suppress(aiohttp.ClientError):
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/healthz") as healthy:
                return healthy.status == 200
        return False

    await eventually(is_alive, "the process serves")
    process.terminate()
    _, err = await process.communicate()
    assert process.returncode == 0, err.decode()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has arenas")
async def test_threads_of_the_compactor_share_one_arena(mongodb_database: Mongo, world: World) -> None:
    await fill(world)
    process = await started(mongodb_database, "compact")
    try:

        async def is_dropped() -> bool:
            return sealed_name(1) not in await world.database.list_collection_names()

        await eventually(is_dropped, "compaction")
        assert thread_arenas(process.pid) == 0
    finally:
        process.terminate()
        await process.communicate()


def thread_arenas(pid: int) -> int:
    """Return how many heaps a process has for arenas of threads: 64 MiB at a multiple of it (glibc, malloc/arena.c)."""
    pair = r"^([0-9a-f]+)-([0-9a-f]+) rw-p 00000000 00:00 0 *\n\2-([0-9a-f]+) ---p 00000000 00:00 0 *$"
    found = re.findall(pair, Path(f"/proc/{pid}/maps").read_text(), re.MULTILINE)
    return sum(int(start, 16) % HEAP == 0 and int(end, 16) - int(start, 16) == HEAP for start, _, end in found)


@pytest.mark.parametrize("run", [partial(command.compact, as_json=True), partial(command.unseal, is_forced=False)])
def test_mongodb_is_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: Callable[[], int]
) -> None:
    monkeypatch.setenv("READINGS_URL", f"mongodb://127.0.0.1:{free_port()}/")
    monkeypatch.setattr(database_command, "_CALL_TIMEOUT_S", 0.3)
    assert run() == 1
    assert "MongoDB is away or refused" in capsys.readouterr().err
