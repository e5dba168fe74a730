"""Refusals of RabbitMQ are reported with the missing permission, and a refused probe costs no durability."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs
from yarl import URL

from broker.interface import BrokerError, BrokerRefused, BrokerUnavailable, Publisher
from broker.message import Message
from broker.rabbitmq import connection as rabbitmq_connection
from broker.rabbitmq.broker import RabbitMQBroker
from broker.rabbitmq.errors import translating_errors
from broker.topology import (
    DEAD_EXCHANGE,
    DEAD_LETTERS,
    LIVE_EXCHANGE,
    OWNERS_EXCHANGE,
    READINGS,
    READINGS_EXCHANGE,
    Exchange,
    Queue,
)
from testing.servers.rabbitmq import RabbitMQServer
from testing.waiting import eventually
from tests.broker.rabbitmq.users import NOTHING, REFUSED, As, made, of

AWAY = ("RabbitMQ is unreachable; retrying.", "The connection to RabbitMQ was lost; reconnecting.")
DURABLE_AFTER_S = 1.0


@pytest.fixture
def as_user(each_rabbitmq_server: RabbitMQServer, each_rabbitmq_url: str) -> Iterator[As]:
    yield from made(each_rabbitmq_server, each_rabbitmq_url)


@pytest.fixture
def newest_url(newest_rabbitmq_server: RabbitMQServer) -> Iterator[str]:
    url = newest_rabbitmq_server.create_vhost()
    yield url
    newest_rabbitmq_server.delete_vhost(url)


@pytest.fixture
def as_newest_user(newest_rabbitmq_server: RabbitMQServer, newest_url: str) -> Iterator[As]:
    yield from made(newest_rabbitmq_server, newest_url)


@asynccontextmanager
async def unhurried(broker: RabbitMQBroker, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Publisher]:
    """A publisher that is handed over at once, connected or not."""
    monkeypatch.setattr(rabbitmq_connection, "START_TIMEOUT_S", 0.01)
    async with broker.publisher(READINGS_EXCHANGE) as publisher:
        yield publisher


async def published(publisher: Publisher) -> bool:
    try:
        await publisher.publish(Message(b"reading"), READINGS_EXCHANGE)
    except BrokerError:
        return False
    return True


# Reports


async def test_a_consumer_without_its_right_says_which_one_is_missing_and_never_that_the_broker_is_away(
    each_rabbitmq_server: RabbitMQServer, each_rabbitmq_url: str, as_user: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq_connection, "START_TIMEOUT_S", 1.5)
    await RabbitMQBroker(each_rabbitmq_url, durable_after_s=0).declare()
    url = as_user(write=r"^tidegate\.readings$")
    with capture_logs() as logs:
        async with RabbitMQBroker(url).consumer(READINGS, prefetch=1) as consumer:
            with pytest.raises(BrokerRefused, match="refused for user"):
                await consumer.check()
    (line,) = of(logs, REFUSED)  # several retries, logged once
    assert line["log_level"] == "warning"
    assert (line["user"], line["resource"]) == (URL(url).user, "queue 'tidegate.readings'")
    if not each_rabbitmq_server.version.startswith("3."):  # its sentence does not say
        assert line["right"] == "read"
    assert not of(logs, *AWAY)


async def test_a_publish_without_permission_fails_as_refused_and_is_logged_once_however_often_it_is_retried(
    each_rabbitmq_server: RabbitMQServer, each_rabbitmq_url: str, as_user: As
) -> None:
    await RabbitMQBroker(each_rabbitmq_url, durable_after_s=0).declare()
    url = as_user(read=r"^tidegate\.(readings|declared)$")
    failures: list[BrokerError] = []
    with capture_logs() as logs:
        async with RabbitMQBroker(url).publisher(READINGS_EXCHANGE) as publisher:

            async def refused_often() -> bool:
                try:
                    await publisher.publish(Message(b"forged"), READINGS_EXCHANGE)
                except BrokerError as error:
                    failures.append(error)
                await asyncio.sleep(0.1)
                return sum("ACCESS_REFUSED" in str(error) for error in failures) >= 20

            await eventually(refused_often, "it is tried on more than one connection")
    assert all(isinstance(error, BrokerRefused) for error in failures)
    (line,) = of(logs, REFUSED)
    assert (line["user"], line["resource"]) == (URL(url).user, "exchange 'tidegate.readings'")
    if not each_rabbitmq_server.version.startswith("3."):
        assert line["right"] == "write"
    assert not of(logs, *AWAY)
    assert len(of(logs, "Connected to RabbitMQ.")) == 1


async def test_a_wrong_password_and_a_vhost_that_is_not_there_are_refusals(
    rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq_connection, "START_TIMEOUT_S", 1.0)
    for url in (str(URL(rabbitmq_url).with_password("wrong")), f"{rabbitmq_url}-none"):
        with capture_logs() as logs:
            async with RabbitMQBroker(url).broadcaster(LIVE_EXCHANGE):
                pass
        assert [line["event"] for line in logs] == [REFUSED], logs
        assert "wrong" not in str(logs)


async def test_a_queue_of_other_arguments_is_a_refusal(each_rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rabbitmq_connection, "START_TIMEOUT_S", 1.0)
    await RabbitMQBroker(each_rabbitmq_url, durable_after_s=0).declare()
    other = Queue(READINGS.name, READINGS_EXCHANGE, READINGS.binding, max_bytes=5_000, dead_letter_queue=DEAD_LETTERS)
    with pytest.raises(BrokerRefused, match="inequivalent arg"):
        await RabbitMQBroker(each_rabbitmq_url, (DEAD_LETTERS, other)).declare()


async def test_the_reason_of_a_lost_connection_is_logged(
    rabbitmq_server: RabbitMQServer, rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq_connection, "STABLE_AFTER_S", 0.0)
    with capture_logs() as logs:
        async with RabbitMQBroker(rabbitmq_url, durable_after_s=0).publisher(READINGS_EXCHANGE) as publisher:
            for why in ("first reason", "second reason"):
                rabbitmq_server.rabbitmqctl("close_all_connections", "--vhost", URL(rabbitmq_url).path[1:], why)

                async def reported(why: str = why) -> bool:
                    return any(why in line["error"] for line in of(logs, AWAY[1]))

                await eventually(reported, "the reason is in the log")
                await eventually(lambda: published(publisher), "it is connected again")


# Durability


async def test_a_user_who_may_not_declare_publishes_nothing_until_another_has_declared_and_waited(
    each_rabbitmq_url: str, as_user: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = as_user(write=r"^tidegate\.readings$", read=r"^tidegate\.declared$")
    async with unhurried(RabbitMQBroker(url), monkeypatch) as publisher:
        with pytest.raises(BrokerUnavailable):
            await publisher.publish(Message(b"too early"), READINGS_EXCHANGE)

        async def reported() -> bool:
            try:
                await publisher.check()
            except BrokerError as error:
                return "python -m broker declare" in str(error)
            return False

        await eventually(reported, "it says what is to be done")
        # The queue is there, and nobody has waited for it.
        async with RabbitMQBroker(each_rabbitmq_url).consumer(READINGS, prefetch=1):
            for _ in range(20):
                assert not await published(publisher)
                await asyncio.sleep(0.1)
            await RabbitMQBroker(each_rabbitmq_url, durable_after_s=0).declare()
            await eventually(lambda: published(publisher), "it publishes once the marker is there")


async def test_a_user_who_may_not_probe_the_marker_waits_until_the_queue_would_survive_a_crash(
    newest_url: str, as_newest_user: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = as_newest_user(write=r"^tidegate\.readings$")  # as a gateway had it before 4.3
    async with unhurried(RabbitMQBroker(url, durable_after_s=DURABLE_AFTER_S), monkeypatch) as publisher:
        for _ in range(5):
            assert not await published(publisher)
            await asyncio.sleep(0.1)
        began = time.monotonic()
        async with RabbitMQBroker(newest_url).consumer(READINGS, prefetch=1):  # declares, waits for nothing
            await eventually(lambda: published(publisher), "it publishes")
        assert time.monotonic() - began >= DURABLE_AFTER_S


@pytest.mark.parametrize(
    ("write", "read", "exchange"),
    [
        (r"^tidegate\.owners$", NOTHING, OWNERS_EXCHANGE),
        (r"^tidegate\.(readings|presence)$", NOTHING, READINGS_EXCHANGE),
        (r"^tidegate\.(dead|live)$", r"^tidegate\.(readings|owners\.deleted)$", DEAD_EXCHANGE),
    ],
)
async def test_rights_that_were_given_before_there_was_a_right_to_ask_still_do(
    newest_url: str, as_newest_user: As, write: str, read: str, exchange: Exchange
) -> None:
    await RabbitMQBroker(newest_url, durable_after_s=0).declare()
    async with asyncio.timeout(20), RabbitMQBroker(as_newest_user("^$", write, read)).publisher(exchange) as publisher:
        await publisher.publish(Message(b"as before"), exchange)


async def test_a_service_that_finds_all_it_uses_has_nothing_refused(
    newest_rabbitmq_server: RabbitMQServer, newest_url: str, as_newest_user: As
) -> None:
    await RabbitMQBroker(newest_url, durable_after_s=0).declare()
    url = as_newest_user(write=r"^tidegate\.readings$", read=r"^tidegate\.declared$")
    broker = RabbitMQBroker(url, durable_after_s=3600)  # no wait where the marker is
    async with asyncio.timeout(20), broker.publisher(READINGS_EXCHANGE) as publisher:
        await publisher.publish(Message(b"reading"), READINGS_EXCHANGE)
    logged = "".join(file.read_text() for file in (newest_rabbitmq_server.folder / "log").glob("*.log"))
    assert "guest" in logged  # it is the log
    assert f"refused for user '{URL(url).user}'" not in logged


# Translation


async def test_a_failure_of_the_driver_is_that_the_broker_is_away() -> None:
    for failure in (ConnectionError("refused"), Exception("in the handshake"), asyncio.CancelledError()):
        with pytest.raises(BrokerUnavailable), translating_errors():
            raise failure


async def test_a_failure_in_the_moment_of_the_cancellation_does_not_keep_the_task() -> None:
    async def connects_for_ever() -> None:
        while True:
            try:
                with translating_errors():
                    try:
                        await asyncio.Event().wait()
                    except asyncio.CancelledError:  # as Python 3.11's wait_for does when the call has just failed
                        raise ConnectionError("refused") from None
            except BrokerUnavailable:
                await asyncio.sleep(0)

    task = asyncio.ensure_future(connects_for_ever())
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait((task,))
    assert task.cancelled()
