"""Servers that stop or die while the services run, and come back."""

import asyncio
import time
from pathlib import Path

import pytest
from pymongo import MongoClient

from testing.servers.mongodb import MongoDBServer
from testing.servers.rabbitmq import RabbitMQServer
from tests.integration.device import connected, readings, registered_device
from tests.integration.services import SECRET, migrated, started


async def test_the_persister_holds_what_it_has_while_mongodb_is_dead(
    tmp_path: Path, rabbitmq_url: str, mariadb_url: str
) -> None:
    await migrated(mariadb_url)
    with MongoDBServer(tmp_path) as mongodb:
        async with (
            started("auth", AUTH_DATABASE_URL=mariadb_url, SIGNING_KEY_SECRET=SECRET, BCRYPT_COST="4") as auth,
            started("gateway", BROKER_URL=rabbitmq_url, AUTH_URL=auth.url) as gateway,
            started("persister", BROKER_URL=rabbitmq_url, READINGS_URL=mongodb.url) as persister,
        ):
            _, device, token = await registered_device(auth.url)
            async with connected(gateway.url, token, device) as sender:
                await sender.send_until_accepted(readings(0, 500))
                mongodb.kill()
                for start in range(500, 5000, 500):
                    await sender.send_until_accepted(readings(start, 500))
                mongodb.restart()
                healed = time.monotonic()
                while mongodb_count(mongodb) < len(sender.acknowledged):
                    assert time.monotonic() - healed < 10, "the backlog did not drain within 10 s"
                    await asyncio.sleep(0.1)
            assert mongodb_count(mongodb) == 5000
            assert await persister.stop() == 0


def mongodb_count(server: MongoDBServer) -> int:

    with MongoClient[dict[str, object]](server.url, timeoutMS=2000) as client:
        return client["tidegate"]["readings"].count_documents({})


async def test_a_device_gets_retry_within_five_seconds_while_rabbitmq_hangs_and_accepted_afterwards(
    tmp_path: Path, mariadb_url: str
) -> None:
    await migrated(mariadb_url)
    with RabbitMQServer(tmp_path) as rabbitmq:
        async with (
            started("auth", AUTH_DATABASE_URL=mariadb_url, SIGNING_KEY_SECRET=SECRET, BCRYPT_COST="4") as auth,
            started("gateway", BROKER_URL=rabbitmq.url, AUTH_URL=auth.url) as gateway,
        ):
            _, device, token = await registered_device(auth.url)
            async with connected(gateway.url, token, device) as sender:
                assert (await sender.send(readings(0, 10)))["status"] == "accepted"
                rabbitmq.pause()
                asked = time.monotonic()
                answer = await sender.send(readings(10, 10))
                assert (answer["status"], answer["code"]) == ("retry", "unavailable")
                assert time.monotonic() - asked < 5
                rabbitmq.resume()
                healed = time.monotonic()
                await sender.send_until_accepted(readings(10, 10))
                assert time.monotonic() - healed < 10
                rabbitmq.kill()
                assert (await sender.send(readings(20, 10)))["status"] == "retry"
                rabbitmq.restart()
                await asyncio.wait_for(sender.send_until_accepted(readings(20, 10)), 10)


@pytest.mark.parametrize("dead", ["rabbitmq", "mongodb", "rabbitmq and mongodb"])
async def test_a_persister_without_its_servers_stops_within_ten_seconds(tmp_path: Path, dead: str) -> None:
    with RabbitMQServer(tmp_path / "r") as rabbitmq, MongoDBServer(tmp_path / "m") as mongodb:
        async with started("persister", BROKER_URL=rabbitmq.url, READINGS_URL=mongodb.url) as persister:
            for server in (rabbitmq, mongodb):
                if server.name.replace("mongod", "mongodb") in dead:
                    server.kill()
            await asyncio.sleep(1)
            asked = time.monotonic()
            assert await persister.stop() == 0
            assert time.monotonic() - asked < 10
