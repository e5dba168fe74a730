"""Resolves the names of webhooks' hosts to addresses that may be reached, and to nothing else.

aiohttp connects to the addresses that its resolver returns, so the address that was checked is the one connected to. It
does not ask a resolver about a host that is an address already: `require_permitted` is for those.
"""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from socket import AddressFamily

from aiohttp.abc import AbstractResolver, ResolveResult

from alarms.webhooks.addresses import AddressGuard

# Each asks for one name. As many as notifications are sent at once, as a name server that does not answer takes a
# thread for half a minute: with the loop's own five or six threads, one owner's would keep those of all others waiting.
THREADS = 200


class AddressRefusedError(OSError):
    """A host has no address that may be reached."""


class GuardedResolver(AbstractResolver):
    """Resolves names, and leaves out what may not be reached."""

    def __init__(self, guard: AddressGuard, resolver: AbstractResolver | None = None) -> None:
        self._guard = guard
        self._resolver = resolver or _Threads()

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


class _Threads(AbstractResolver):
    """The system's resolver, in threads of its own."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="webhook names")

    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AddressFamily.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name; OSError if it has none."""

        def ask() -> list[ResolveResult]:
            # AI_ADDRCONFIG: no addresses of a kind that this host has none of.
            found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
            return [
                ResolveResult(
                    hostname=host,
                    host=str(address[0]),
                    port=port,
                    family=kind,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
                for kind, _, protocol, _, address in found
            ]

        return await asyncio.get_running_loop().run_in_executor(self._pool, ask)

    async def close(self) -> None:
        """Let go of the threads; those that still wait for an answer end behind it."""
        self._pool.shutdown(wait=False, cancel_futures=True)


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
