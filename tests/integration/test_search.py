"""`GET /series/search` of a reader that asks `auth`, each a process of its own, for the names of devices."""

from typing import Any

import aiohttp

from testing.waiting import eventually
from tests.integration.conftest import Pipeline
from tests.integration.device import connected, logged_in, readings
from tests.integration.services import started


async def test_a_page_shows_names_and_newest_values_with_auth_and_without(
    pipeline: Pipeline, rabbitmq_url: str
) -> None:
    url, database = pipeline.mongodb
    settings = {"BROKER_URL": rabbitmq_url, "AUTH_URL": pipeline.auth.url}
    async with aiohttp.ClientSession(pipeline.auth.url) as session:
        token = await logged_in(session, "ada@example.com")
    async with (
        started("reader", READINGS_URL=url, READINGS_DATABASE=database, **settings) as reader,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session,
    ):

        async def searched() -> Any:
            async with session.get(f"{reader.url}/series/search", params={"text": "temperature"}) as answer:
                assert answer.status == 200, await answer.text()
                return await answer.json()

        (silent,) = (await searched())["items"]
        assert (silent["device"], silent["registered"], silent["latest"]) == (pipeline.device, True, None)
        assert (silent["name"], silent["location"]) == ("d1", "roof")
        async with connected(pipeline.gateways[0].url, pipeline.token, pipeline.device) as device:
            await device.send_until_accepted(readings(0, 100))

            async def shown() -> bool:
                (item,) = (await searched())["items"]
                return bool(item["connected"] and item["latest"] and item["latest"]["value"] == 99 / 4)

            await eventually(shown, "the newest value is shown")
        (item,) = (await searched())["items"]
        assert (item["name"], item["location"], item["sensorType"]) == ("d1", "roof", "temperature")
        await pipeline.auth.kill()
        for _ in range(3):
            assert (await searched())["items"][0]["latest"]["value"] == 99 / 4
