"""The servers that other tests use: they start, keep confirmed data through a crash, and leave nothing behind."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import aio_pika
import pymongo
import pytest
from pymongo.errors import NetworkTimeout
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from testing.servers import mariadb, mongodb, rabbitmq
from testing.servers.mariadb import MariaDBServer
from testing.servers.mongodb import MongoDBServer
from testing.servers.process import Server, ServerError, exists, wait_until
from testing.servers.rabbitmq import RabbitMQServer

KINDS = [RabbitMQServer, MariaDBServer, MongoDBServer]

OWNER = """
import sys, time
from pathlib import Path
from testing.servers.mariadb import MariaDBServer
from testing.servers.mongodb import MongoDBServer
from testing.servers.rabbitmq import RabbitMQServer

servers = [kind(Path(sys.argv[1]) / kind.name) for kind in (RabbitMQServer, MariaDBServer, MongoDBServer)]
for server in servers:
    server.start()
print(*(pid for server in servers for pid in server.processes()), flush=True)
time.sleep(600)
"""


@contextmanager
def mongo_client(server: MongoDBServer, **options: Any) -> Iterator[pymongo.MongoClient[dict[str, Any]]]:
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(server.url, **options)
    with client:
        yield client


async def test_rabbitmq_keeps_a_confirmed_message_through_a_crash(tmp_path: Path) -> None:
    with RabbitMQServer(tmp_path) as server:
        url = server.create_vhost()
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            await channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"})
            message = aio_pika.Message(b"reading", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, routing_key="kept", mandatory=True)
        server.wait_until_registered(url, "kept")
        server.kill()
        assert not server.running
        server.restart()
        async with await aio_pika.connect(url) as connection:
            queue = await (await connection.channel()).get_queue("kept")
            received = await queue.get()
            await received.ack()
            assert received.body == b"reading"


def test_mariadb_keeps_a_committed_row_through_a_crash(tmp_path: Path) -> None:
    with MariaDBServer(tmp_path) as server:
        server.execute("CREATE DATABASE kept")
        server.execute("CREATE TABLE kept.devices (id INT PRIMARY KEY) ENGINE=InnoDB")
        server.execute("INSERT INTO kept.devices VALUES (7)")
        server.kill()
        server.restart()
        assert server.execute("SELECT id FROM kept.devices") == [(7,)]


def test_a_server_that_ended_by_itself_is_told_of_with_its_log_and_runs_again(tmp_path: Path) -> None:
    with MariaDBServer(tmp_path) as server:
        server.check_alive()
        server.kill()
        with pytest.raises(ServerError, match=r"(?s)mariadb had ended with status 137 .*ready for connections"):
            server.check_alive()
        server.check_alive()
        assert server.execute("SELECT 1") == [(1,)]


@pytest.mark.parametrize("replica_set", [False, True])
def test_mongod_keeps_a_journaled_document_through_a_crash(tmp_path: Path, replica_set: bool) -> None:
    with MongoDBServer(tmp_path, replica_set=replica_set) as server:
        with mongo_client(server, w="majority", journal=True) as client:
            client["kept"]["readings"].insert_one({"_id": 1, "value": 20.5})
        server.kill()
        server.restart()
        with mongo_client(server) as client:
            assert client["kept"]["readings"].find_one({"_id": 1}) == {"_id": 1, "value": 20.5}
            assert ("setName" in client.admin.command("hello")) is replica_set


@pytest.mark.parametrize("kind", KINDS)
def test_an_orderly_stop_leaves_no_process_behind(tmp_path: Path, kind: type[Server]) -> None:
    with kind(tmp_path) as server:
        processes = server.processes()
        assert len(processes) > 1
        assert server.pid in processes
        server.stop()
        assert not any(map(exists, processes))
        with pytest.raises(ServerError, match="does not run"):
            _ = server.pid


def test_the_servers_of_a_killed_owner_vanish(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as owner:
        assert owner.stdout
        processes = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(processes) > len(KINDS) * 2  # at least a keeper and a server each, and Erlang's helpers
        assert all(map(exists, processes))
        owner.kill()
    wait_until(lambda: not any(map(exists, processes)), "the orphans are gone", timeout_s=5)


@pytest.mark.parametrize(("kind", "module"), list(zip(KINDS, [rabbitmq, mariadb, mongodb], strict=True)))
def test_a_port_that_is_taken_is_exchanged_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Server], module: Any
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as stranger:
        taken = stranger.getsockname()[1]
        free_port = module.free_port
        answers = iter([taken])
        monkeypatch.setattr(module, "free_port", lambda: next(answers, None) or free_port())
        with kind(tmp_path) as server:
            assert server.port != taken
        assert not list(answers)


def test_a_paused_server_answers_nothing_until_it_is_resumed(tmp_path: Path) -> None:
    with MongoDBServer(tmp_path) as server, mongo_client(server, socketTimeoutMS=300) as client:
        client.admin.command("ping")
        server.pause()
        with pytest.raises(NetworkTimeout):
            client.admin.command("ping")
        server.resume()
        assert client.admin.command("ping")["ok"] == 1


def test_a_server_that_ends_while_it_starts_says_why(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a folder of MariaDB's")
    with pytest.raises(ServerError, match="mariadb has ended"), MariaDBServer(tmp_path):
        pass


def test_killing_the_server_by_its_pid_is_seen(tmp_path: Path) -> None:
    with MongoDBServer(tmp_path) as server:
        processes = server.processes()
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.running, "the keeper ends with its server", timeout_s=5)
        assert not any(map(exists, processes))


async def test_each_test_gets_a_broker_of_its_own(rabbitmq_server: RabbitMQServer, rabbitmq_url: str) -> None:
    async with await aio_pika.connect(rabbitmq_url) as connection:
        await (await connection.channel()).declare_queue("tidegate.readings", durable=True)
    other = rabbitmq_server.create_vhost()
    try:
        async with await aio_pika.connect(other) as connection:
            with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
                await (await connection.channel()).get_queue("tidegate.readings")
    finally:
        rabbitmq_server.delete_vhost(other)
    assert rabbitmq_url.rpartition("/")[2] in rabbitmq_server.rabbitmqctl("list_vhosts")


async def test_each_test_gets_a_database_of_its_own(mariadb_url: str, mongodb_database: tuple[str, str]) -> None:
    engine = create_async_engine(mariadb_url)
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT DATABASE()"))).scalar() == mariadb_url.rpartition("/")[2]
    await engine.dispose()
    url, name = mongodb_database
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(url)
    with client:
        assert client[name].list_collection_names() == []
