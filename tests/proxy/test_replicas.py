"""Devices behind the proxy reconnect when one of two gateways is killed, and no accepted reading is lost."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from testing.servers.ports import free_port
from testing.waiting import eventually
from tests.faults.fleet import Fleet
from tests.faults.verdict import Stores, judged, until_stored
from tests.integration.services import SECRET, migrated, started
from tests.proxy.name_server import NameServer
from tests.proxy.nginx import running_nginx

DEVICES = 12


async def test_devices_reconnect_through_the_proxy_when_a_gateway_is_killed_and_nothing_accepted_is_lost(
    tmp_path: Path, rabbitmq_url: str, mariadb_url: str, mongodb_database: tuple[str, str]
) -> None:
    await migrated(mariadb_url)
    mongodb_url, database = mongodb_database
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        start = stack.enter_async_context
        names = await start(NameServer.serving())
        users = {"AUTH_DATABASE_URL": mariadb_url, "SIGNING_KEY_SECRET": SECRET, "BCRYPT_COST": "4"}
        auth = await start(started("auth", **users))
        port = free_port()
        gateways = [
            await start(started("gateway", BROKER_URL=rabbitmq_url, AUTH_URL=auth.url, HOST=address, PORT=str(port)))
            for address in ("127.0.0.2", "127.0.0.3")
        ]
        await start(started("persister", BROKER_URL=rabbitmq_url, READINGS_URL=mongodb_url, READINGS_DATABASE=database))
        names.addresses |= {"auth.test": ["127.0.0.1"], "gateway.test": ["127.0.0.2", "127.0.0.3"]}
        proxy = await start(running_nginx(tmp_path, names, auth=auth.port, gateway=port))
        fleet = await Fleet.registered(proxy.url, [proxy.url], devices=DEVICES, seed=1)
        running = [tasks.create_task(sender.run()) for sender in fleet.senders]
        loop = asyncio.get_running_loop()
        fleet.begin("streamed")
        await fleet.accepted_since(loop.time(), 20)
        await asyncio.sleep(0.5)
        await gateways[0].kill()
        names.addresses["gateway.test"] = ["127.0.0.3"]
        await fleet.accepted_since(loop.time(), 10)

        async def has_upstream_line() -> bool:
            return '"upstream":"127.0.0.2' in proxy.log  # a socket is logged when it ends

        await eventually(has_upstream_line, "some devices were connected to the killed gateway")
        await fleet.finish(20)
        for task in running:
            task.cancel()
        stores = Stores(mongodb_url, rabbitmq_url, database)
        await until_stored(stores, fleet, "streamed", 20)
        counts, _ = await judged(stores, fleet, "streamed")
    assert counts["acknowledged"] > 100
    assert {name: counts[name] for name in ("lost", "duplicated", "foreign")} == {
        "lost": 0,
        "duplicated": 0,
        "foreign": 0,
    }
