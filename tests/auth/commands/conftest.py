"""auth with a broker: SQLite with the embedded one, MariaDB with RabbitMQ."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from auth.migrate import migrate
from broker.interface import Broker
from tests.auth.commands.system import Device
from tests.auth.service import Client, make_settings, running
from tests.broker.system import System


@pytest.fixture(params=["embedded", "rabbitmq"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Broker]:
    embedded = request.param == "embedded"
    url = f"embedded://{tmp_path}/queue.db" if embedded else request.getfixturevalue("rabbitmq_url")
    async with System(url).opened() as opened:
        await opened.declare()
        yield opened


@pytest.fixture
async def users_url(request: pytest.FixtureRequest, broker: Broker, sqlite_url: str) -> str:
    embedded = "embedded" in request.node.callspec.id
    url = sqlite_url if embedded else str(request.getfixturevalue("mariadb_url"))
    await migrate(url)
    return url


@pytest.fixture
async def auth(broker: Broker, users_url: str) -> AsyncIterator[Client]:
    async with running(make_settings(users_url), broker=broker) as client:
        yield client


@pytest.fixture
async def device(auth: Client) -> Device:
    return await Device.registered(auth, await auth.new_user())
