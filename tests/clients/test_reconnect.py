"""After a temporary refusal every client reconnects by itself: official ones, old and new, Python's, the simulator."""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.clients.streaming_clients import ALL, JAVASCRIPT, PYTHON, streaming_clients, wait_for_event
from tests.gateway.fakes import FakeBroker
from tests.gateway.harness import ISSUING, gateway
from tests.integration.device import registered_device
from tests.integration.services import SECRET, migrated, started

AUTH_LATER_S = 8.0
STREAMING_WITHIN_S = 10.0
# The former deadline for CONNECT, with which a slow `auth` function ended in a loop.
OLD_DEADLINE_S = 5.0


@pytest.mark.timeout(150)
async def test_when_auth_comes_8_s_after_the_gateway_every_client_streams_within_10_s(tmp_path: Path) -> None:
    users = f"sqlite+aiosqlite:///{tmp_path / 'users.db'}"
    await migrated(users)
    settings = {"AUTH_DATABASE_URL": users, "SIGNING_KEY_SECRET": SECRET, "BCRYPT_COST": "4"}
    async with started("auth", **settings) as auth:
        *_, token = await registered_device(auth.url)
        await auth.stop()
    queue = f"embedded://{tmp_path / 'queue.db'}"
    async with AsyncExitStack() as stack:
        edge = await stack.enter_async_context(started("gateway", until="healthz", BROKER_URL=queue, AUTH_URL=auth.url))
        began = time.monotonic()
        logs = await stack.enter_async_context(streaming_clients(edge.url, token, *ALL))
        await asyncio.sleep(began + AUTH_LATER_S - time.monotonic())
        assert not any("connect" in one.events() for one in logs)
        await stack.enter_async_context(started("auth", PORT=str(auth.port), **settings))
        await wait_for_event(logs, "accepted", time.monotonic(), STREAMING_WITHIN_S)
        assert not any("disconnect" in one.events() for one in logs), logs


@pytest.mark.timeout(120)
async def test_the_101st_socket_of_a_device_streams_once_the_100_have_closed(fake_broker: FakeBroker) -> None:
    fake_broker.outgoing.auto_confirm = True
    async with gateway(fake_broker) as running, AsyncExitStack() as sockets, AsyncExitStack() as stack:
        for _ in range(100):
            socket = await sockets.enter_async_context(running.raw())
            assert (await socket.receive_str(timeout=5)).startswith("40{")
        logs = await stack.enter_async_context(streaming_clients(running.url, ISSUING.device(), *ALL))

        def refused() -> float:
            return (
                running.registry.get_sample_value("tidegate_gateway_connects_total", {"outcome": "rate_limited"}) or 0
            )

        async with asyncio.timeout(30):
            while refused() < 3 * len(ALL):
                await asyncio.sleep(0.05)
        assert not any("accepted" in one.events() for one in logs)
        await sockets.aclose()
        await wait_for_event(logs, "accepted", time.monotonic(), STREAMING_WITHIN_S)


@pytest.mark.timeout(120)
async def test_an_auth_function_that_takes_longer_than_the_old_deadline_connects_the_first_time(
    fake_broker: FakeBroker,
) -> None:
    fake_broker.outgoing.auto_confirm = True
    takes_s = OLD_DEADLINE_S + 2
    async with gateway(fake_broker) as running:
        token = ISSUING.device()
        async with streaming_clients(running.url, token, *JAVASCRIPT, PYTHON, auth_takes_s=takes_s) as logs:
            await wait_for_event(logs, "accepted", 0.0, takes_s + 10)
            assert [one.events()[:2] for one in logs] == [["connect", "accepted"]] * len(logs)


@pytest.mark.timeout(120)
async def test_an_auth_function_slower_than_the_deadline_ends_in_a_session_that_lasts(fake_broker: FakeBroker) -> None:
    fake_broker.outgoing.auto_confirm = True
    async with (
        gateway(fake_broker, connect_timeout_seconds=1.0) as running,
        streaming_clients(running.url, ISSUING.device(), *JAVASCRIPT, auth_takes_s=3.5) as logs,
    ):
        await wait_for_event(logs, "accepted", 0.0, 20)
        since = time.monotonic()
        # Until the tokens of earlier sockets' `auth` have arrived, too: the session receives them as a second CONNECT.
        await asyncio.sleep(6)
        for one in logs:
            assert set(one.events(since)) == {"accepted"}, json.dumps(one.lines)
        assert running.count("malformed_total") >= len(logs)
