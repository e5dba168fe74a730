"""Which addresses webhooks may reach, and that names are resolved to those only."""

from ipaddress import ip_network
from socket import AF_INET, AddressFamily

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from alarms.webhooks.addresses import AddressGuard
from alarms.webhooks.resolver import AddressRefusedError, GuardedResolver, require_permitted

PUBLIC = ["93.184.215.14", "1.1.1.1", "100.63.255.255", "100.128.0.0", "172.32.0.1", "2606:4700::1111", "2600::1"]
REFUSED = {
    "this network": ["0.0.0.0", "::"],  # noqa: S104 - nothing is bound
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd12::1"],
    "link-local": ["169.254.169.254", "fe80::1", "fe80::1%eth0", "fec0::1"],
    "shared": ["100.64.0.0", "100.127.255.255"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1"],
    "reserved": ["240.0.0.1", "255.255.255.255"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1"],
    "benchmarks": ["198.18.0.1", "198.19.255.255"],
    "mapped": ["::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:10.0.0.1"],
    "compatible": ["::127.0.0.1", "::8.8.8.8"],
    "NAT64": ["64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1"],
    "6to4": ["2002:7f00:1::1", "2002:808:808::1", "192.88.99.1"],
    "Teredo": ["2001::1"],
}


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_reached(address: str) -> None:
    assert AddressGuard().permits(address)


@pytest.mark.parametrize(("kind", "address"), [(kind, one) for kind, some in REFUSED.items() for one in some])
def test_others_may_not(kind: str, address: str) -> None:
    assert not AddressGuard().permits(address), kind


def test_networks_that_are_allowed_are_let_through_and_no_others() -> None:
    guard = AddressGuard([ip_network("10.1.0.0/16"), ip_network("fd00::/8")])
    assert all(map(guard.permits, ("10.1.2.3", "fd00::1", "fd00::1%eth0", "1.1.1.1")))
    assert not any(map(guard.permits, ("10.2.0.1", "fc00::1", "127.0.0.1", "::ffff:10.1.2.3")))


class Names(AbstractResolver):
    """A resolver that answers every name with the same addresses."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AddressFamily.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=one, port=port, family=AF_INET, proto=0, flags=0)
            for one in self.addresses
        ]

    async def close(self) -> None:
        pass


async def test_of_a_name_the_public_addresses_are_left() -> None:
    found = await GuardedResolver(AddressGuard(), Names("10.0.0.1", "1.1.1.1", "::1")).resolve("hook.test", 443)
    assert [(one["host"], one["port"]) for one in found] == [("1.1.1.1", 443)]


async def test_a_name_without_public_addresses_is_refused() -> None:
    with pytest.raises(AddressRefusedError):
        await GuardedResolver(AddressGuard(), Names("10.0.0.1", "169.254.0.1")).resolve("hook.test", 443)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%eth0", "1.2.3", "999.1.1.1", ":"])
def test_a_host_that_is_an_address_is_not_resolved_and_so_checked_itself(host: str) -> None:
    with pytest.raises(AddressRefusedError):
        require_permitted(host, AddressGuard())


@pytest.mark.parametrize("host", ["1.1.1.1", "2600::1", "example.org", "localhost", "1.example"])
def test_public_addresses_pass_and_names_are_for_the_resolver(host: str) -> None:
    require_permitted(host, AddressGuard())
