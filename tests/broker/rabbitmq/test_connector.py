"""A cluster behind one name, and several hosts in BROKER_URL: what is silent is left for the next, within seconds."""

import asyncio
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from yarl import URL

from broker.connect import check_url, open_broker
from broker.interface import BrokerError, BrokerUnavailable, ConfirmLate
from broker.message import Message
from broker.rabbitmq import broker as rabbitmq_broker
from broker.rabbitmq import connection as rabbitmq_connection
from broker.rabbitmq import publisher as rabbitmq_publisher
from broker.rabbitmq.address import parse_hosts
from broker.rabbitmq.broker import RabbitMQBroker
from broker.settings import BrokerSettings
from broker.topology import READINGS, READINGS_EXCHANGE
from runtime.settings import SettingsError, from_env
from testing.servers.ports import free_port
from testing.waiting import eventually
from tests.broker.rabbitmq.nodes import Node, url_of

A_FEW_SECONDS = 5.0
NAME = "rabbitmq.cluster.test"
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"


@pytest.fixture(autouse=True)
def no_hurry_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A context waits for its connection, so that the time it takes can be measured."""
    monkeypatch.setattr(rabbitmq_connection, "START_TIMEOUT_S", 30.0)


@contextmanager
def silent(address: str, port: int) -> Iterator[None]:
    """An address that accepts and says nothing."""
    with socket.create_server((address, port), backlog=100):
        yield


@contextmanager
def dropping(address: str, port: int) -> Iterator[None]:
    """An address whose packets are dropped: its backlog is full, so the kernel answers no further SYN."""
    with socket.create_server((address, port), backlog=0), socket.socket() as one, socket.socket() as two:
        for filling in (one, two):
            filling.setblocking(False)
            filling.connect_ex((address, port))
        time.sleep(0.05)
        with socket.socket() as probe:
            probe.settimeout(0.3)
            with pytest.raises(TimeoutError):
                probe.connect((address, port))
        yield


BAD = {"silent": silent, "dropping": dropping}


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that the cluster's name has, in the resolver's order."""
    addresses: list[str] = []
    asked = socket.getaddrinfo

    def resolved(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host != NAME:
            return asked(host, port, *rest, **more)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    return addresses


@pytest.fixture
async def nodes(rabbitmq_url: str) -> AsyncIterator[list[Node]]:
    """Two healthy nodes on the same port of two addresses."""
    behind = URL(rabbitmq_url).port or 0
    port = free_port()
    first, second = (Node(f"127.0.0.{number}", port, behind) for number in (12, 13))
    async with first.running(), second.running():
        yield [first, second]


def make_certificate(certificate: Path, key: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)


async def publishes_within(url: str, seconds: float) -> None:
    began = time.monotonic()
    async with RabbitMQBroker(url, durable_after_s=0).publisher(READINGS_EXCHANGE) as publisher:
        await publisher.publish(Message(b"reading"), READINGS_EXCHANGE)
        assert time.monotonic() - began < seconds


async def publishes_until_all_are_met(url: str, nodes: list[Node]) -> int:
    """Publish, each time within a few seconds, until every node had a connection; return how often.

    Each time starts at a random address: that 40 times all miss one of three happens in one of ten million runs.
    """
    for times in range(1, 41):
        await publishes_within(url, A_FEW_SECONDS)
        if all(node.connections for node in nodes):
            return times
    pytest.fail("a node that is there never had a connection")


@pytest.mark.parametrize("bad", BAD)
async def test_behind_one_name_a_first_address_that_is_dead_costs_seconds(
    bad: str, named: list[str], nodes: list[Node], rabbitmq_url: str
) -> None:
    port = nodes[0].port
    named += ["127.0.0.11", *(node.address for node in nodes)]
    url = str(URL(rabbitmq_url).with_host(NAME).with_port(port))
    await RabbitMQBroker(rabbitmq_url, durable_after_s=0).declare()
    with BAD[bad]("127.0.0.11", port):
        await publishes_until_all_are_met(url, nodes)


@pytest.mark.parametrize("bad", BAD)
async def test_of_several_hosts_one_that_is_dead_costs_seconds(bad: str, nodes: list[Node], rabbitmq_url: str) -> None:
    port = nodes[0].port
    hosts = ",".join(f"{address}:{port}" for address in ("127.0.0.11", *(node.address for node in nodes)))
    url = rabbitmq_url.replace(f"127.0.0.1:{URL(rabbitmq_url).port}", hosts)
    await RabbitMQBroker(rabbitmq_url, durable_after_s=0).declare()
    with BAD[bad]("127.0.0.11", port):
        published = await publishes_until_all_are_met(url, nodes)
        assert await RabbitMQBroker(url).depth(READINGS) == published


async def test_a_command_begins_only_when_each_host_had_its_time(
    nodes: list[Node], rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await RabbitMQBroker(rabbitmq_url, durable_after_s=0).declare()
    monkeypatch.setattr(rabbitmq_connection, "START_TIMEOUT_S", 3.0)  # as it is
    monkeypatch.setattr("broker.rabbitmq.connector.random.sample", lambda hosts, count: list(hosts))
    port = nodes[0].port
    hosts = ",".join(f"{address}:{port}" for address in ("127.0.0.11", "127.0.0.10", nodes[0].address))
    url = rabbitmq_url.replace(f"127.0.0.1:{URL(rabbitmq_url).port}", hosts)
    with silent("127.0.0.11", port), silent("127.0.0.10", port):
        async with RabbitMQBroker(url).publisher(READINGS_EXCHANGE) as publisher:
            await publisher.publish(Message(b"reading"), READINGS_EXCHANGE)  # once: a command does not try again


async def test_after_a_loss_the_next_connection_is_to_another_host(nodes: list[Node], rabbitmq_url: str) -> None:
    hosts = ",".join(f"{node.address}:{node.port}" for node in nodes)
    url = rabbitmq_url.replace(f"127.0.0.1:{URL(rabbitmq_url).port}", hosts)
    async with RabbitMQBroker(url, durable_after_s=0).publisher(READINGS_EXCHANGE) as publisher:
        for loss in range(4):
            used, other = sorted(nodes, key=lambda node: -len(node._open))
            assert (len(used._open), len(other._open)) == (2, 0)
            before = other.connections
            used.drop_all()

            async def elsewhere(other: Node = other, before: int = before) -> bool:
                return other.connections > before and publisher.connection.usable.is_set()

            await eventually(elsewhere, f"after loss {loss} it is at the other host")
            await publisher.publish(Message(b"reading"), READINGS_EXCHANGE)


async def test_connections_spread_over_the_hosts(nodes: list[Node], rabbitmq_url: str) -> None:
    hosts = ",".join(f"{node.address}:{node.port}" for node in nodes)
    broker = RabbitMQBroker(rabbitmq_url.replace(f"127.0.0.1:{URL(rabbitmq_url).port}", hosts), durable_after_s=0)
    await broker.declare()
    for _ in range(30):  # all at one of two: once in 500 million runs
        await broker.depth(READINGS)
    assert all(node.connections for node in nodes)


async def test_where_no_host_answers_each_is_named_with_its_reason_once_and_no_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rabbitmq_connection, "START_TIMEOUT_S", 7.0)
    port = free_port()
    url = f"amqp://guest:hunter2@127.0.0.11:{port},127.0.0.12:{port},nowhere.invalid/"
    with silent("127.0.0.12", port), capture_logs() as logs:
        async with RabbitMQBroker(url).publisher(READINGS_EXCHANGE) as publisher:
            with pytest.raises(BrokerUnavailable) as away:
                await publisher.check()
    for words in (
        f"127.0.0.11:{port}: ConnectionRefusedError",
        f"127.0.0.12:{port}: silent for 2 s",
        "nowhere.invalid",
    ):
        assert words in str(away.value)
    assert [line["event"] for line in logs] == ["RabbitMQ is unreachable; retrying."], logs
    assert "hunter2" not in str(logs)


async def test_a_node_that_falls_silent_is_left_for_another_after_one_heartbeat(
    nodes: list[Node], rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (rabbitmq_connection, rabbitmq_broker):
        monkeypatch.setattr(module, "HEARTBEAT_S", 2)
    broker = RabbitMQBroker(url_of(nodes, rabbitmq_url), durable_after_s=0)
    async with broker.publisher(READINGS_EXCHANGE, confirm_timeout_s=0.5) as publisher:
        await publisher.publish(Message(b"before"), READINGS_EXCHANGE)
        first, other = sorted(nodes, key=lambda node: -node.connections)

        async def published() -> bool:
            with suppress(BrokerError):
                await publisher.publish(Message(b"after"), READINGS_EXCHANGE)
                return True
            return False

        # Not while heartbeats arrive, however little is published.
        await asyncio.sleep(3 * 2)
        assert (first.connections, other.connections) == (1, 0)
        first.carries.clear()
        with capture_logs() as logs:
            await eventually(published, "another node takes the next message")
        first.carries.set()
    assert other.connections == 1
    assert "silent for 2 s" in [line.get("error") for line in logs]


async def test_a_node_that_confirms_nothing_is_left_for_another_and_one_that_was_late_once_is_not(
    nodes: list[Node], rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq_publisher, "UNCONFIRMED_S", 2.0)
    broker = RabbitMQBroker(url_of(nodes, rabbitmq_url), durable_after_s=0)
    async with broker.publisher(READINGS_EXCHANGE, confirm_timeout_s=0.5) as publisher:
        await publisher.publish(Message(b"before"), READINGS_EXCHANGE)
        first, other = sorted(nodes, key=lambda node: -node.connections)

        for _time in range(3):  # after a pause that is longer, one late confirm is no reason
            first.only_beats = True
            with pytest.raises(ConfirmLate):
                await publisher.publish(Message(b"late"), READINGS_EXCHANGE)
            first.only_beats = False
            await asyncio.sleep(2.2)
        assert (first.connections, other.connections) == (1, 0)

        first.only_beats = True
        with capture_logs() as logs:
            while not other.connections:
                with suppress(BrokerError):
                    await publisher.publish(Message(b"unconfirmed"), READINGS_EXCHANGE)
                await asyncio.sleep(0.05)
            await publisher.connection.usable.wait()
            await publisher.publish(Message(b"after"), READINGS_EXCHANGE)
    assert "nothing was confirmed for 2 s" in [line.get("error") for line in logs]


async def test_a_node_that_confirms_nothing_is_kept_where_there_is_no_other(
    rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq_publisher, "UNCONFIRMED_S", 0.5)
    node = Node("127.0.0.12", free_port(), URL(rabbitmq_url).port or 0)
    broker = RabbitMQBroker(url_of([node], rabbitmq_url), durable_after_s=0)
    async with node.running(), broker.publisher(READINGS_EXCHANGE, confirm_timeout_s=0.4) as publisher:
        node.only_beats = True
        for _time in range(4):
            with pytest.raises(ConfirmLate):
                await publisher.publish(Message(b"unconfirmed"), READINGS_EXCHANGE)
        node.only_beats = False
        await publisher.publish(Message(b"confirmed"), READINGS_EXCHANGE)
        assert node.connections == 1


async def test_a_node_without_another_is_left_to_the_drivers_own_rule(
    rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (rabbitmq_connection, rabbitmq_broker):
        monkeypatch.setattr(module, "HEARTBEAT_S", 2)
    node = Node("127.0.0.12", free_port(), URL(rabbitmq_url).port or 0)
    broker = RabbitMQBroker(url_of([node], rabbitmq_url), durable_after_s=0)
    async with node.running(), broker.publisher(READINGS_EXCHANGE, confirm_timeout_s=8) as publisher:
        node.carries.clear()
        asyncio.get_running_loop().call_later(5, node.carries.set)
        await publisher.publish(Message(b"waits"), READINGS_EXCHANGE)
        assert node.connections == 1


async def test_over_tls_an_address_of_a_name_is_still_checked_against_the_name(
    tmp_path: Path, named: list[str], rabbitmq_url: str
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make_certificate(certificate, key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    names: list[str | None] = []
    context.sni_callback = lambda _, name, __: names.append(name)
    node = Node("127.0.0.12", free_port(), URL(rabbitmq_url).port or 0)
    server = await asyncio.start_server(node._connected, node.address, node.port, ssl=context)
    named += ["127.0.0.11", node.address]
    url = str(URL(rabbitmq_url).with_host(NAME).with_port(node.port)).replace("amqp://", "amqps://")
    async with server:
        with silent("127.0.0.11", node.port):
            await publishes_within(f"{url}?cafile={certificate}", A_FEW_SECONDS)
        assert names[-1] == NAME
        other = url.replace(NAME, node.address)  # for this name the certificate is not
        with pytest.raises(BrokerUnavailable, match="certificate"):
            await RabbitMQBroker(f"{other}?cafile={certificate}").depth(READINGS)
        node.drop_all()


# The forms of BROKER_URL


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("amqp://broker", [("broker", 5672)]),
        ("amqps://user:secret@broker/vhost", [("broker", 5671)]),
        ("amqp://user:secret@a:5673,b,c:5675/vhost?heartbeat=3", [("a", 5673), ("b", 5672), ("c", 5675)]),
        ("amqps://a,b/", [("a", 5671), ("b", 5671)]),
        ("amqp://user:secret@[2001:db8::1]:5673,[::1]/", [("2001:db8::1", 5673), ("::1", 5672)]),
        ("amqp://user:s%2Cec%40ret@a,b,a/", [("a", 5672), ("b", 5672)]),
    ],
)  # fmt: skip
def test_hosts_and_their_ports_are_read_from_the_address(url: str, hosts: list[tuple[str, int]]) -> None:
    check_url(url)
    found = parse_hosts(url)
    assert [(host.name, host.port) for host in found] == hosts
    one = URL("amqp://user:s%2Cec%40ret@a/" if "%2C" in url else "amqp://user:secret@a/")
    for host in found:
        assert (host.url.host, host.url.port) == (host.name, host.port)
        assert (host.url.user, host.url.password) in [(one.user, one.password), (None, None)]
        assert host.url.path == ("/vhost" if "vhost" in url else "/" if host.url.path else "")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("amqp://", "host 1 of 1: it has no name"),
        ("amqp://user:secret@a:5672,other:secret@b/", "one user for all hosts, before the first; @ in a password is"),
        ("amqp://user:hunter2@", "host 1 of 1: it has no name"),
        ("amqp://user:hunter2@a,,c/", "host 2 of 3: it has no name"),
        ("amqp://user:hunter2@a:5672,b:no/", "host 2 of 2: its port is not a number from 1 to 65535"),
        ("amqp://user:hunter2@a:5672,b:65536/", "host 2 of 2: its port"),
        ("amqp://user:hunter2@a:0/", "host 1 of 1: its port"),
        ("amqp://user:hunter2@a:/", "host 1 of 1: its port"),
        ("amqp://user:hunter2@::1/", "with an IPv6 address in brackets"),
        ("amqp://user:hunter2@[::1,b/", "host 1 of 2"),
        ("amqp://user:hunter2@[hunter2]/", "not an IPv6 address"),
        ("amqp://user:hunter2@a b/", "NAME"),
        ("amqp://user:hun/ter2@a/", "host 1 of 1: its port"),
        ("amqp://user:hunter2,b:5672/", "host 1 of 2: its port"),
    ],
)
async def test_a_bad_address_stops_the_start_naming_the_variable_and_never_the_password(url: str, why: str) -> None:
    with pytest.raises(SettingsError) as refused:
        from_env(BrokerSettings, {"BROKER_URL": url})
    assert str(refused.value).startswith("BROKER_URL")
    assert why in str(refused.value)
    assert "hunter2" not in str(refused.value)
    with pytest.raises(ValueError, match="BROKER_URL"):
        async with open_broker(url):
            pass
