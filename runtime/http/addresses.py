"""Who really asks: the address of a client, behind proxies that were named and behind no others.

`X-Forwarded-For` can be written by anyone; only what a trusted proxy added to it is believed. From the right, the first
address that is no trusted proxy is the client's. Some proxies add the client's port, and write IPv6 in brackets or the
whole in quotation marks, as RFC 7239 (6) does in `Forwarded`.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import web

Address = IPv4Address | IPv6Address
# What one household or server has of IPv6 (RFC 6177): limits by single address would be no limits.
IPV6_PREFIX = 64
UNKNOWN = "unknown"

# An IPv6 address in brackets or an IPv4 address, then a port; quoted or not.
_HOP = re.compile(r'(?P<quote>"?)(?:\[(?P<v6>[^\[\]"]*)\]|(?P<v4>[0-9.]*))(?::[0-9]{1,5})?(?P=quote)')


class ClientAddresses:
    """Tells the client's address of a request."""

    def __init__(self, trusted_proxies: Sequence[str] = ()) -> None:
        """Take networks in CIDR form; ValueError names one that is none."""
        self._trusted = tuple(ip_network(network) for network in trusted_proxies)

    def of(self, request: web.Request) -> str:
        """Return the client's address as text, or `unknown` (a Unix socket)."""
        address = _parsed(request.remote or "")
        if address is None:
            return UNKNOWN
        if self._is_proxy(address):
            for hop in reversed(",".join(request.headers.getall("X-Forwarded-For", [])).split(",")):
                before = _hop(hop.strip())
                if before is None:  # nobody can have sent from there: the proxy before it is all that is known
                    break
                address = before
                if not self._is_proxy(address):
                    break
        return str(address)

    def _is_proxy(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def network_of(address: str) -> str:
    """Return what limits count under: an IPv4 address, or the /64 of an IPv6 address."""
    parsed = _parsed(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((parsed, IPV6_PREFIX), strict=False))
    return address if parsed is None else str(parsed)


def _hop(text: str) -> Address | None:
    """Return the address of one entry of `X-Forwarded-For`, None when it has none."""
    if (bare := _parsed(text)) is not None:
        return bare
    if (found := _HOP.fullmatch(text)) is None:
        return None
    if found["v6"] is None:
        return _parsed(found["v4"])
    return _parsed(found["v6"]) if ":" in found["v6"] else None


def _parsed(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # A dual-stack socket shows IPv4 as ::ffff:192.0.2.1; and a zone is of no use to anyone else.
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or IPv6Address(int(address))
    return address
