import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from prometheus_client import CollectorRegistry

from runtime.http.listen import listen
from runtime.http.problems import problem_middleware
from simulator.api import Api
from simulator.device import device_session
from simulator.device_pool import DevicePool
from simulator.metrics import SimulatorMetrics
from simulator.serve import SimulatorRoutes
from tests.simulator.fake_tidegate import FakeTidegate

USER = {"Authorization": "Bearer user-1"}
BODY = {"sensorType": "humidity", "location": "roof", "rate": 50}


@asynccontextmanager
async def service(
    url: str, max_devices: int = 10, max_devices_per_user: int = 10
) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    app = web.Application(middlewares=[problem_middleware])
    async with (
        device_session() as http,
        DevicePool(
            http,
            url,
            SimulatorMetrics(CollectorRegistry()),
            max_devices=max_devices,
            max_devices_per_user=max_devices_per_user,
        ).open() as devices,
    ):
        SimulatorRoutes(Api(http, url, attempts=1), devices).add_to(app)
        async with listen(app, "127.0.0.1", 0) as port:
            yield http, f"http://127.0.0.1:{port}/simulator/devices"


async def call(http: aiohttp.ClientSession, method: str, url: str, **options: Any) -> tuple[int, Any]:
    async with http.request(method, url, **options) as response:
        return response.status, await response.json(content_type=None) if response.status != 204 else None


async def test_a_device_is_started_listed_and_stopped(tidegate: FakeTidegate) -> None:
    tidegate.logins = 1
    async with service(tidegate.url) as (http, url):
        status, device = await call(http, "POST", url, json=BODY, headers=USER)
        assert (status, device) == (201, {"id": "d1", "name": "device-1", **BODY, "rate": 50.0})
        await tidegate.until(lambda: len(tidegate.events) >= 3)
        assert await call(http, "GET", url, headers=USER) == (200, {"items": [device]})
        assert await call(http, "DELETE", f"{url}/d1", headers=USER) == (204, None)
        assert await call(http, "GET", url, headers=USER) == (200, {"items": []})
        assert (await call(http, "DELETE", f"{url}/d1", headers=USER))[0] == 404


async def test_errors_are_problems(tidegate: FakeTidegate) -> None:
    tidegate.logins = 1
    async with service(tidegate.url, max_devices=1) as (http, url):
        assert (await call(http, "GET", url))[0] == 401
        assert (await call(http, "GET", url, headers=CIMultiDict([*USER.items(), *USER.items()])))[0] == 401
        assert (await call(http, "GET", url, headers={"Authorization": "Bearer wrong"}))[0] == 401
        status, problem = await call(http, "POST", url, json={**BODY, "rate": 0}, headers=USER)
        assert (status, problem["errors"][0]["field"]) == (422, "rate")
        status, problem = await call(http, "POST", url, json={**BODY, "location": "roof\0"}, headers=USER)
        assert (status, problem["errors"][0]["field"]) == (422, "location")
        status, problem = await call(http, "POST", url, json={**BODY, "sensorType": "air temperature"}, headers=USER)
        assert (status, problem["errors"][0]["message"]) == (422, "This must be made of A-Z a-z 0-9 _ . : - only.")
        assert (await call(http, "POST", url, json=BODY, headers=USER))[0] == 201
        status, problem = await call(http, "POST", url, json=BODY, headers=USER)
        assert (status, problem["code"], problem["limit"], problem["scope"]) == (503, "busy", 1, "everybody")


async def test_one_user_has_a_share_and_leaves_the_others_theirs(tidegate: FakeTidegate) -> None:
    tidegate.logins = 1
    tidegate.owners["of-another"] = "another"
    other = {"Authorization": "Bearer of-another"}
    async with service(tidegate.url, max_devices=3, max_devices_per_user=2) as (http, url):
        # At once, so that those that are still being registered count, too.
        answers = await asyncio.gather(*(call(http, "POST", url, json=BODY, headers=USER) for _ in range(5)))
        assert sorted(status for status, _ in answers) == [201, 201, 429, 429, 429]
        refused = next(problem for status, problem in answers if status == 429)
        assert (refused["code"], refused["limit"], refused["scope"]) == ("rate_limited", 2, "owner")
        assert refused["retryAfterMs"] > 0
        assert "2 devices run for you" in refused["detail"]
        assert len(tidegate.devices) == 2  # what has no place is not registered either
        assert (await call(http, "POST", url, json=BODY, headers=other))[0] == 201
        mine = next(device["id"] for status, device in answers if status == 201)
        assert (await call(http, "DELETE", f"{url}/{mine}", headers=USER))[0] == 204
        assert (await call(http, "POST", url, json=BODY, headers=USER))[0] == 201


async def test_a_target_that_is_away_is_503(tidegate: FakeTidegate) -> None:
    async with service("http://127.0.0.1:1") as (http, url):
        status, problem = await asyncio.wait_for(call(http, "GET", url, headers=USER), 10)
        assert (status, problem["status"]) == (503, 503)
