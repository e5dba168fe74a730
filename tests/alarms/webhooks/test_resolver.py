"""Names of webhooks' hosts: resolved beside each other, however long one takes."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from alarms.webhooks import resolver as resolver_module
from alarms.webhooks.addresses import AddressGuard
from alarms.webhooks.resolver import AddressRefusedError, GuardedResolver, ThreadResolver

MORE_THAN_ANY_POOL_HAS = 100
PUBLIC = "9.9.9.9"


class Names:
    """A stand-in for the system's resolver, which does not answer for some names until it ends."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.asked = 0

    def look_up(self, host: str, port: int, *_: Any) -> list[Any]:
        self.asked += 1
        if host.startswith("hangs"):
            self.ended.wait(60)
        if host.startswith("unknown"):
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        if host.startswith("wrong"):
            raise UnicodeError("label too long")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, port))]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    found = Names()
    monkeypatch.setattr(socket, "getaddrinfo", found.look_up)
    yield found
    found.ended.set()


async def test_names_that_are_not_answered_hold_up_no_other(names: Names) -> None:
    resolver = GuardedResolver(AddressGuard())
    hanging = [asyncio.ensure_future(resolver.resolve(f"hangs{at}", 443)) for at in range(MORE_THAN_ANY_POOL_HAS)]
    async with asyncio.timeout(30):
        while names.asked < len(hanging):
            await asyncio.sleep(0.01)
        (found,) = await resolver.resolve("answers", 443)
    assert (found["hostname"], found["host"], found["port"]) == ("answers", PUBLIC, 443)
    for one in hanging[1:]:
        one.cancel()
    names.ended.set()
    assert len(await hanging[0]) == 1


async def test_more_names_than_it_may_have_at_once_are_refused(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver_module, "MAX_LOOKUPS", 2)
    resolver = ThreadResolver()
    hanging = [asyncio.ensure_future(resolver.resolve("hangs", 443)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(OSError, match="too many"):
        await resolver.resolve("answers", 443)
    names.ended.set()
    await asyncio.gather(*hanging)
    assert len(await resolver.resolve("answers", 443)) == 1


@pytest.mark.parametrize("name", ["unknown", "wrong"])
async def test_a_name_that_is_none_is_an_error(names: Names, name: str) -> None:
    with pytest.raises(OSError, match=r"no such name|label too long"):
        await ThreadResolver().resolve(name, 443)


async def test_a_name_of_a_private_address_is_refused(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.alarms.webhooks.test_resolver.PUBLIC", "10.0.0.1")
    with pytest.raises(AddressRefusedError):
        await GuardedResolver(AddressGuard()).resolve("answers", 443)
