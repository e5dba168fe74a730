"""The client's address, trusting `X-Forwarded-For` from configured proxies only.

Anyone can write that header, so only the entries added by trusted proxies count: from the right, the first address that
is not a trusted proxy is the client's. Some proxies add the client's port, and put IPv6 in brackets or everything in
quotation marks, as RFC 7239 (6) does in `Forwarded`.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import web

Address = IPv4Address | IPv6Address
# A household or server has a whole /64 (RFC 6177), so limits by single IPv6 address would not limit anything.
IPV6_PREFIX = 64
UNKNOWN = "unknown"

# An IPv6 address in brackets or an IPv4 address, then a port; quoted or not.
_HOP = re.compile(r'(?P<quote>"?)(?:\[(?P<v6>[^\[\]"]*)\]|(?P<v4>[0-9.]*))(?::[0-9]{1,5})?(?P=quote)')


class ClientAddresses:
    """Determines the client address of requests."""

    def __init__(self, trusted_proxies: Sequence[str] = ()) -> None:
        """Take networks in CIDR notation; raise ValueError for anything else."""
        self._trusted = tuple(ip_network(network) for network in trusted_proxies)

    def of(self, request: web.Request) -> str:
        """Return the client's address as text, or `unknown` for a Unix socket."""
        address = _parsed(request.remote or "")
        if address is None:
            return UNKNOWN
        if self._is_proxy(address):
            for hop in reversed(",".join(request.headers.getall("X-Forwarded-For", [])).split(",")):
                before = _hop(hop.strip())
                if before is None:  # not an address: the proxy that added it is all that is known
                    break
                address = before
                if not self._is_proxy(address):
                    break
        return str(address)

    def _is_proxy(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def network_of(address: str) -> str:
    """Return the key for limits: an IPv4 address, or the /64 of an IPv6 address."""
    parsed = _parsed(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((parsed, IPV6_PREFIX), strict=False))
    return address if parsed is None else str(parsed)


def _hop(text: str) -> Address | None:
    """Return the address in one entry of `X-Forwarded-For`, or None."""
    if (bare := _parsed(text)) is not None:
        return bare
    if (found := _HOP.fullmatch(text)) is None:
        return None
    if found["v6"] is None:
        return _parsed(found["v4"])
    return _parsed(found["v6"]) if ":" in found["v6"] else None


@lru_cache(maxsize=1024)  # a proxy's, and those of clients that come again
def _parsed(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # A dual-stack socket shows IPv4 as ::ffff:192.0.2.1; a zone means nothing outside its host.
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or IPv6Address(int(address))
    return address
