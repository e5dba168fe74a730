"""Health checks and metrics of a process, on a port of their own: `/healthz`, `/readyz`, `/metrics`.

`/healthz` reports whether the process is alive (503 while it drains). `/readyz` checks its dependencies and names those
that fail; it gates the start and informs operators, but does not take a serving process out of service.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from runtime.compiled import is_compiled
from runtime.http.listen import listen
from runtime.logs import logger
from runtime.process import Shutdown
from runtime.settings import ProcessSettings
from runtime.version import VERSION

log = logger("runtime.http.ops")

Check = Callable[[], Awaitable[None]]
"""Raises if the dependency is not available; operators see the exception's text."""

CHECK_TIMEOUT_S = 2.0


@asynccontextmanager
async def ops_server(
    settings: ProcessSettings,
    shutdown: Shutdown,
    registry: CollectorRegistry,
    checks: Mapping[str, Check],
    listening: asyncio.Event | None = None,
) -> AsyncIterator[int]:
    """Serve health checks and metrics while the context lasts; yield the port.

    `listening`: set by `listen` on the service's own port, until when the process is not ready.
    """

    async def healthz(_: web.Request) -> web.Response:
        if shutdown.requested:
            return web.json_response({"status": "draining"}, status=503)
        return web.json_response({"status": "alive"})

    async def readyz(_: web.Request) -> web.Response:
        failing = await failing_checks(checks)
        if listening is not None and not listening.is_set():
            failing["process"] = "starting"
        if shutdown.requested:
            failing["process"] = "draining"
        if failing:
            return web.json_response({"status": "unready", "failing": failing}, status=503)
        return web.json_response({"status": "ready", "checked": sorted(checks)})

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    # Memory, CPU time and open files of the process, under Prometheus' standard names.
    ProcessCollector(registry=registry)
    build_info = Gauge(
        "tidegate_build_info",
        "The running version, and whether modules of it are compiled; always 1",
        ["version", "compiled"],
        registry=registry,
    )
    build_info.labels(VERSION, str(is_compiled()).lower()).set(1)
    # Read on the event loop, by the handler above; about 5 ms for 10,000 tasks.
    tasks = Gauge("tidegate_tasks", "asyncio tasks that have not ended", registry=registry)
    tasks.set_function(lambda: len(asyncio.all_tasks()))
    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    async with listen(app, settings.ops_host, settings.ops_port) as port:
        log.info("Health and metrics are served.", host=settings.ops_host, port=port)
        yield port


async def failing_checks(checks: Mapping[str, Check]) -> dict[str, str]:
    """Run all checks at once and return the reason of each that fails, by name."""

    async def run(name: str, check: Check) -> tuple[str, str] | None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await check()
        except TimeoutError:
            return name, f"no answer within {CHECK_TIMEOUT_S:g} s"
        except Exception as error:  # noqa: BLE001 - whatever the driver raises, the dependency is not ready
            return name, f"{type(error).__name__}: {error}"
        return None

    results = await asyncio.gather(*(run(name, check) for name, check in checks.items()))
    return dict(result for result in results if result is not None)
