"""`auth` without the right to send commands: refused at once, and told in the log, until the right is there."""

import time
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from yarl import URL

from auth.migrate import migrate
from broker.rabbitmq.broker import RabbitMQBroker
from testing.servers.rabbitmq import RabbitMQServer
from testing.waiting import eventually
from tests.auth.commands.system import Device, done, gateway
from tests.auth.service import make_settings, running
from tests.broker.rabbitmq.users import REFUSED, As, made, of

NOT_COMMANDS = r"^(?!tidegate\.commands$).*"


@pytest.fixture
def as_user(rabbitmq_server: RabbitMQServer, rabbitmq_url: str) -> Iterator[As]:
    yield from made(rabbitmq_server, rabbitmq_url)


async def test_a_command_that_the_broker_refuses_is_unavailable_at_once_and_sent_once_the_right_is_there(
    rabbitmq_server: RabbitMQServer, rabbitmq_url: str, as_user: As, sqlite_url: str
) -> None:
    await migrate(sqlite_url)
    everything = RabbitMQBroker(rabbitmq_url, durable_after_s=0)
    await everything.declare()
    limited = as_user(configure=".*", write=NOT_COMMANDS, read=".*")
    with capture_logs() as logs:
        async with (
            running(make_settings(sqlite_url), broker=RabbitMQBroker(limited, durable_after_s=0)) as auth,
            gateway(everything, auth) as url,
        ):
            device = await Device.registered(auth, await auth.new_user())
            async with device.connected(url, done("here")):
                begun = time.monotonic()
                for _ in range(3):
                    answer = await device.command(timeoutMs=30_000)
                    assert (answer.status, answer.json["code"]) == (503, "unavailable")
                    assert int(answer.headers["Retry-After"]) > 0
                assert time.monotonic() - begun < 30, "not when the command's time is up"
                assert device.received == []
                assert await device.listed() == []
                line = of(logs, REFUSED)[0]
                assert (line["user"], line["resource"]) == (URL(limited).user, "exchange 'tidegate.commands'")

                vhost, user = URL(rabbitmq_url).path[1:], URL(limited).user
                rights = {"configure": ".*", "write": ".*", "read": ".*"}
                rabbitmq_server.api("PUT", f"permissions/{vhost}/{user}", rights)

                async def is_done() -> bool:
                    return bool((await device.command(timeoutMs=5_000)).status == 200)

                await eventually(is_done, "the device gets commands", timeout_s=30)
