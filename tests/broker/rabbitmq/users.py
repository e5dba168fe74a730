"""Users of a RabbitMQ vhost with just some rights, and what is logged when one is missing."""

from collections.abc import Callable, Iterator
from typing import Any

from yarl import URL

from testing.servers.rabbitmq import RabbitMQServer

REFUSED = "RabbitMQ refuses what this process needs; retrying."
NOTHING = "^$"
As = Callable[..., str]


def made(server: RabbitMQServer, url: str) -> Iterator[As]:
    """Make users of a vhost, each with just the rights that are given."""
    vhost = URL(url).path[1:]
    users: list[str] = []

    def user(configure: str = NOTHING, write: str = NOTHING, read: str = NOTHING) -> str:
        users.append(f"{vhost}-{len(users)}")
        server.api("PUT", f"users/{users[-1]}", {"password": "secret", "tags": ""})
        server.api("PUT", f"permissions/{vhost}/{users[-1]}", {"configure": configure, "write": write, "read": read})
        return str(URL(url).with_user(users[-1]).with_password("secret"))

    yield user
    for name in users:
        server.api("DELETE", f"users/{name}")


def of(logs: list[Any], *events: str) -> list[Any]:
    """Return the lines of these events."""
    return [line for line in logs if line["event"] in events]
