"""Which addresses a webhook may reach: those of the public internet, and networks that an operator has allowed.

The URL is an owner's, so without this an owner could have this host ask whatever it reaches: the metadata of a cloud,
other services, a printer. Checked is the address that a connection is made to, behind the resolution of its name
(alarms/webhooks/resolver.py): a name may resolve to anything, and differently each time.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network

# IANA's registries of special-purpose addresses (RFC 6890 and its successors), what is not globally reachable, and of
# IPv6 also what carries an IPv4 address, which a gateway on the way may unwrap. Listed here, because what Python's
# `is_global` says differs between its patch releases.
_REFUSED: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::1/128",
        "::/96",
        "::ffff:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)


class AddressGuard:
    """Decides about addresses; `allowed` are networks that are let through although they are not public."""

    def __init__(self, allowed: Iterable[Network] = ()) -> None:
        self._allowed = tuple(allowed)

    def permits(self, address: str) -> bool:
        """Return whether a connection may be made to an address, given as text, with or without an IPv6 scope."""
        parsed = _without_scope(address)
        if any(_contains(network, parsed) for network in self._allowed):
            return True
        return not any(_contains(network, parsed) for network in _REFUSED)


def _without_scope(address: str) -> IPv4Address | IPv6Address:
    return ip_address(address.partition("%")[0])


def _contains(network: Network, address: IPv4Address | IPv6Address) -> bool:
    return network.version == address.version and address in network
