"""The address that a request is counted and logged with."""

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from runtime.http.addresses import ClientAddresses, network_of

PROXIES = ("10.0.0.0/8", "2001:db8:aaaa::/48")


def asked(addresses: ClientAddresses, peer: str | None, *forwarded: str, header: str = "X-Forwarded-For") -> str:
    request = make_mocked_request("GET", "/", headers=CIMultiDict((header, value) for value in forwarded))
    return addresses.of(request.clone(remote=peer) if peer is not None else request)


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "True-Client-IP"])
def test_without_proxies_no_header_is_believed(header: str) -> None:
    assert asked(ClientAddresses(), "10.0.0.1", "203.0.113.7", header=header) == "10.0.0.1"


@pytest.mark.parametrize("header", ["Forwarded", "X-Real-IP", "True-Client-IP"])
def test_of_a_proxy_only_the_one_header_is_believed(header: str) -> None:
    assert asked(ClientAddresses(PROXIES), "10.0.0.1", "203.0.113.7", header=header) == "10.0.0.1"


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.7",), "203.0.113.7"),
        ("203.0.113.9", ("203.0.113.7",), "203.0.113.9"),  # a stranger's header
        ("10.0.0.1", ("192.0.2.1, 203.0.113.7",), "203.0.113.7"),  # what the client wrote itself stands left
        ("10.0.0.1", ("192.0.2.1", "203.0.113.7"), "203.0.113.7"),  # two headers are one list
        ("10.0.0.1", ("203.0.113.7, 10.2.3.4",), "203.0.113.7"),  # two proxies
        ("10.0.0.1", ("10.9.9.9, 10.2.3.4",), "10.9.9.9"),  # asked from within
        ("10.0.0.1", ("evil, 203.0.113.7",), "203.0.113.7"),
        ("10.0.0.1", ("garbage",), "10.0.0.1"),
        ("10.0.0.1", ("",), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.7, ",), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.7:51234",), "203.0.113.7"),  # with the client's port
        ("10.0.0.1", ('"203.0.113.7:51234"',), "203.0.113.7"),
        ("10.0.0.1", ('"203.0.113.7"',), "203.0.113.7"),
        ("10.0.0.1", ("[2001:db8::1]:443",), "2001:db8::1"),
        ("10.0.0.1", ("[2001:db8::1]",), "2001:db8::1"),
        ("10.0.0.1", ('"[2001:db8::1]:443"',), "2001:db8::1"),
        ("10.0.0.1", ('"[2001:db8::1]"',), "2001:db8::1"),
        ("10.0.0.1", ("[::ffff:203.0.113.7]:443",), "203.0.113.7"),
        ("10.0.0.1", ("192.0.2.1:1, 203.0.113.7:51234, 10.2.3.4:80",), "203.0.113.7"),
        ("10.0.0.1", ("203.0.113.7:51234, garbage:80, 10.2.3.4:80",), "10.2.3.4"),
        ("10.0.0.1", ("203.0.113.7:",), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.7:http",), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.7:123456",), "10.0.0.1"),
        ("10.0.0.1", ("[203.0.113.7]:443",), "10.0.0.1"),
        ("10.0.0.1", ("[2001:db8::1",), "10.0.0.1"),
        ("10.0.0.1", ('"203.0.113.7',), "10.0.0.1"),
        ("10.0.0.1", (":443",), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.7, garbage, 10.2.3.4",), "10.2.3.4"),  # no further than the last that is known
        ("10.0.0.1", ("01.02.03.04",), "10.0.0.1"),
        ("10.0.0.1", ("x" * 5000,), "10.0.0.1"),
        ("10.0.0.1", ("::ffff:203.0.113.7",), "203.0.113.7"),
        ("::ffff:10.0.0.1", ("203.0.113.7",), "203.0.113.7"),  # a dual-stack socket
        ("::ffff:203.0.113.9", ("192.0.2.1",), "203.0.113.9"),
        ("2001:db8:aaaa::1", ("2001:DB8:0::7",), "2001:db8::7"),
        ("2001:db8:bbbb::1", ("192.0.2.1",), "2001:db8:bbbb::1"),
        ("fe80::1%eth0", (), "fe80::1"),
        ("", ("203.0.113.7",), "unknown"),  # a Unix socket
    ],
)
def test_the_client_is_the_rightmost_address_that_is_no_proxy(
    peer: str, forwarded: tuple[str, ...], client: str
) -> None:
    assert asked(ClientAddresses(PROXIES), peer, *forwarded) == client


@pytest.mark.parametrize("network", ["10.0.0.1/8", "10.0.0.0/33", "proxy", "::/129"])
def test_what_is_no_network_is_named(network: str) -> None:
    with pytest.raises(ValueError, match=network):
        ClientAddresses(("192.0.2.0/24", network))


def test_one_address_is_a_network_too() -> None:
    assert asked(ClientAddresses(("127.0.0.1", "::1")), "::1", "203.0.113.7") == "203.0.113.7"


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("unknown", "unknown"),
    ],
)
def test_ipv6_is_counted_by_its_64_bit_networks(address: str, network: str) -> None:
    assert network_of(address) == network
