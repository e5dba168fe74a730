"""Health checks and metrics, as probes see them."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from runtime import compiled
from runtime.http import ops
from runtime.http.listen import listen
from runtime.http.ops import Check, ops_server
from runtime.process import Shutdown
from runtime.settings import ProcessSettings
from runtime.version import VERSION


async def fine() -> None:
    return


async def broken() -> None:
    raise ConnectionError("nobody listens")


async def hanging() -> None:
    await asyncio.sleep(60)


@asynccontextmanager
async def serving(
    shutdown: Shutdown,
    checks: dict[str, Check],
    registry: CollectorRegistry | None = None,
    listening: asyncio.Event | None = None,
) -> AsyncIterator[aiohttp.ClientSession]:
    settings = ProcessSettings(ops_host="127.0.0.1", ops_port=0)
    async with (
        ops_server(settings, shutdown, registry or CollectorRegistry(), checks, listening) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        yield session


async def test_healthz_says_alive_and_503_from_the_request_to_stop_on() -> None:
    shutdown = Shutdown()
    async with serving(shutdown, {"broker": broken}) as session:
        async with session.get("/healthz") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "alive"})
        shutdown.request("SIGTERM")
        async with session.get("/healthz") as answer:
            assert (answer.status, await answer.json()) == (503, {"status": "draining"})
        async with session.get("/readyz") as answer:
            assert answer.status == 503
            assert (await answer.json())["failing"]["process"] == "draining"


async def test_readyz_names_what_was_checked() -> None:
    async with serving(Shutdown(), {"keys": fine, "broker": fine}) as session, session.get("/readyz") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ready", "checked": ["broker", "keys"]})


async def test_a_process_is_not_ready_before_its_own_port_takes_connections() -> None:
    listening = asyncio.Event()
    async with serving(Shutdown(), {"keys": fine}, listening=listening) as session:
        async with session.get("/readyz") as answer:
            assert (answer.status, (await answer.json())["failing"]) == (503, {"process": "starting"})
        async with listen(web.Application(), "127.0.0.1", 0, listening=listening), session.get("/readyz") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ready", "checked": ["keys"]})


async def test_readyz_names_what_fails_and_why_also_when_it_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "CHECK_TIMEOUT_S", 0.1)
    checks: dict[str, Check] = {"keys": fine, "broker": broken, "mongodb": hanging}
    async with serving(Shutdown(), checks) as session, session.get("/readyz") as answer:
        assert answer.status == 503
        assert (await answer.json())["failing"] == {
            "broker": "ConnectionError: nobody listens",
            "mongodb": "no answer within 0.1 s",
        }


@pytest.mark.parametrize(("loaded", "shown"), [((), "false"), (("runtime.http.ops", "not.loaded"), "true")])
async def test_metrics_are_those_of_the_registry_in_prometheus_form_with_the_build(
    monkeypatch: pytest.MonkeyPatch, loaded: tuple[str, ...], shown: str
) -> None:
    monkeypatch.setattr(compiled._state, "modules", frozenset(loaded))
    registry = CollectorRegistry()
    Counter("tidegate_things_total", "Things", registry=registry).inc(3)
    async with serving(Shutdown(), {}, registry) as session, session.get("/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain")
        text = await answer.text()
    assert "tidegate_things_total 3.0" in text
    assert f'tidegate_build_info{{compiled="{shown}",version="{VERSION}"}} 1.0' in text


async def test_tasks_that_have_not_ended_are_counted_as_they_are_when_metrics_are_read() -> None:
    async def tasks(session: aiohttp.ClientSession) -> float:
        async with session.get("/metrics") as answer:
            found = re.search(r"^tidegate_tasks (\S+)$", await answer.text(), re.MULTILINE)
        assert found
        return float(found[1])

    async with serving(Shutdown(), {}) as session:
        before = await tasks(session)
        waiting = [asyncio.create_task(asyncio.Event().wait()) for _ in range(50)]
        assert await tasks(session) >= before + 45
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert await tasks(session) <= before + 5
