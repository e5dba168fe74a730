"""Parse `BROKER_URL`: one RabbitMQ host, or all of a cluster's, `amqp://user:password@a:5672,b:5672,c:5672/vhost`.

User, password, vhost and options apply to every host. No part of a URL is ever logged: if the password is not escaped,
any part may contain it.
"""

import re
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv6Address

from yarl import URL

DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}
_AUTHORITY = re.compile(r"(?P<scheme>amqps?)://(?:(?P<user>[^/?#]*)@)?(?P<hosts>[^@/?#]*)(?P<rest>(?:[/?#].*)?)")
_HOST = re.compile(r"(?P<name>\[[^\[\]]*\]|[^\[\]:\s]*)(?::(?P<port>[^:]*))?")
# What is left of `user:password@a,other:password@b` in front of its last @.
_SECOND_USER = re.compile(r"@[^@,]*,")


@dataclass(frozen=True, slots=True)
class Host:
    """One host of the URL. `url` goes to the driver; TLS checks the certificate against the name in it."""

    name: str
    port: int
    url: URL = field(repr=False)


def parse_hosts(url: str) -> tuple[Host, ...]:
    """Return the hosts of a URL, in its order; ValueError, which names BROKER_URL, when it is malformed."""
    found = _AUTHORITY.fullmatch(url)
    if found is None:
        raise ValueError("BROKER_URL is not of the form amqp://user:password@host:port,host:port/vhost")
    if found["user"] and _SECOND_USER.search(found["user"]):
        raise ValueError("BROKER_URL: one user for all hosts, before the first; @ in a password is written %40")
    names = found["hosts"].split(",")
    user = "" if found["user"] is None else found["user"] + "@"
    hosts = []
    for number, text in enumerate(names, 1):
        where = f"BROKER_URL, host {number} of {len(names)}"
        name, port = _host(text, DEFAULT_PORTS[found["scheme"]], where)
        host_part = f"[{name}]" if ":" in name else name
        try:
            whole = URL(f"{found['scheme']}://{user}{host_part}:{port}{found['rest']}")
            complete = whole.host and whole.port == port
        except ValueError:  # its text would show the URL
            complete = None
        if not complete:
            raise ValueError(f"{where}: the host name is invalid, or user and password are not percent-encoded")
        hosts.append(Host(name, port, whole))
    return tuple(dict.fromkeys(hosts))


def _host(text: str, default_port: int, where: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if found is None:
        raise ValueError(f"{where}: it must be NAME or NAME:PORT, with an IPv6 address in brackets")
    name, port = found["name"], default_port
    if not name:
        raise ValueError(f"{where}: it has no name")
    if name.startswith("["):
        name = name[1:-1]
        try:
            IPv6Address(name)
        except AddressValueError:
            raise ValueError(f"{where}: the text in brackets is not an IPv6 address") from None
    if found["port"] is not None:
        if not re.fullmatch(r"[0-9]{1,5}", found["port"]) or not 1 <= int(found["port"]) <= 65_535:
            raise ValueError(f"{where}: its port is not a number from 1 to 65535")
        port = int(found["port"])
    return name, port
