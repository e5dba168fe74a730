"""Resolves the names of webhooks' hosts to addresses that may be reached, and to nothing else.

aiohttp connects to the addresses that its resolver returns, so the address that was checked is the one connected to. It
does not ask a resolver about a host that is an address already: `require_permitted` is for those.
"""

import asyncio
import socket
import threading
from contextlib import suppress
from ipaddress import ip_address
from socket import AddressFamily
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from alarms.webhooks.addresses import AddressGuard


class AddressRefusedError(OSError):
    """A host has no address that may be reached."""


# Whoever waits for a name gives up after 10 s, but its thread waits on, some 30 s for a server that does not answer.
MAX_LOOKUPS = 1000


class ThreadResolver(AbstractResolver):
    """Resolves each name in a thread of its own.

    A name's server is its owner's, and may not answer: in the event loop's pool, which has a few threads, some such
    names hold up all others, the database's and the broker's among them.
    """

    def __init__(self) -> None:
        self._running = 0

    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AddressFamily.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name; OSError if there are none, or too many names are being resolved."""
        if self._running >= MAX_LOOKUPS:
            raise OSError("too many names are being resolved")
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[Any]] = loop.create_future()

        def end(result: list[Any] | OSError) -> None:
            self._running -= 1
            if found.done():  # nobody waits any more
                return
            if isinstance(result, OSError):
                found.set_exception(result)
            else:
                found.set_result(result)

        def look_up() -> None:
            result: list[Any] | OSError
            try:
                result = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
            except OSError as error:
                result = error
            except UnicodeError as error:  # no name that could be asked about
                result = OSError(str(error))
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(end, result)

        self._running += 1
        threading.Thread(target=look_up, name="resolver", daemon=True).start()
        return [_result(host, *one) for one in await found]

    async def close(self) -> None:
        """Threads end with what they wait for, or with the process."""


def _result(name: str, family: int, _: int, proto: int, __: str, address: tuple[Any, ...]) -> ResolveResult:
    return ResolveResult(
        hostname=name,
        host=str(address[0]),
        port=int(address[1]),
        family=family,
        proto=proto,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )


class GuardedResolver(AbstractResolver):
    """Resolves names, and leaves out what may not be reached."""

    def __init__(self, guard: AddressGuard, resolver: AbstractResolver | None = None) -> None:
        self._guard = guard
        self._resolver = resolver or ThreadResolver()

    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AddressFamily.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name that may be reached; AddressRefusedError if there is none among them."""
        found = await self._resolver.resolve(host, port, family)
        permitted = [one for one in found if self._guard.permits(one["host"])]
        if not permitted:
            raise AddressRefusedError(f"{host} resolves to no public address")
        return permitted

    async def close(self) -> None:
        """Close the resolver behind it."""
        await self._resolver.close()


def require_permitted(host: str, guard: AddressGuard) -> None:
    """Raise AddressRefusedError if a URL's host is itself an address that may not be reached."""
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        # What is made like an address is no name that a resolver is asked about.
        if ":" in host or host.replace(".", "").isdigit():
            raise AddressRefusedError(f"{host} is no address") from None
        return
    if not guard.permits(host):
        raise AddressRefusedError(f"{host} is no public address")
