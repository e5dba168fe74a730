"""What `BROKER_URL` names: one host of RabbitMQ, or all of a cluster's, `amqp://user:password@a:5672,b:5672,c:5672/vhost`.

User, password, vhost and options are the same at every host. Nothing of an address is ever shown: where a password is
not escaped, any part of it may be the password.
"""

import re
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv6Address

from yarl import URL

DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}
_AUTHORITY = re.compile(r"(?P<scheme>amqps?)://(?:(?P<user>[^/?#]*)@)?(?P<hosts>[^@/?#]*)(?P<rest>(?:[/?#].*)?)")
_HOST = re.compile(r"(?P<name>\[[^\[\]]*\]|[^\[\]:\s]*)(?::(?P<port>[^:]*))?")


@dataclass(frozen=True, slots=True)
class Host:
    """A host that was named: `url` is what the driver is told, its name included, by which TLS knows it."""

    name: str
    port: int
    url: URL = field(repr=False)


def parse_hosts(url: str) -> tuple[Host, ...]:
    """Return the hosts that an address names, in its order; ValueError, naming BROKER_URL, where it is none."""
    found = _AUTHORITY.fullmatch(url)
    if found is None:
        raise ValueError("BROKER_URL is not of the form amqp://user:password@host:port,host:port/vhost")
    names = found["hosts"].split(",")
    user = "" if found["user"] is None else found["user"] + "@"
    hosts = []
    for number, text in enumerate(names, 1):
        where = f"BROKER_URL, host {number} of {len(names)}"
        name, port = _host(text, DEFAULT_PORTS[found["scheme"]], where)
        written = f"[{name}]" if ":" in name else name
        try:
            whole = URL(f"{found['scheme']}://{user}{written}:{port}{found['rest']}")
            complete = whole.host and whole.port == port
        except ValueError:  # its text would show the address
            complete = None
        if not complete:
            raise ValueError(f"{where}: this is no name of a host, or user and password are not percent-encoded")
        hosts.append(Host(name, port, whole))
    return tuple(dict.fromkeys(hosts))


def _host(text: str, default_port: int, where: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if found is None:
        raise ValueError(f"{where}: it is neither NAME nor NAME:PORT, and IPv6 addresses stand in brackets")
    name, port = found["name"], default_port
    if not name:
        raise ValueError(f"{where}: it has no name")
    if name.startswith("["):
        name = name[1:-1]
        try:
            IPv6Address(name)
        except AddressValueError:
            raise ValueError(f"{where}: what stands in brackets is no IPv6 address") from None
    if found["port"] is not None:
        if not re.fullmatch(r"[0-9]{1,5}", found["port"]) or not 1 <= int(found["port"]) <= 65_535:
            raise ValueError(f"{where}: its port is not a number from 1 to 65535")
        port = int(found["port"])
    return name, port
