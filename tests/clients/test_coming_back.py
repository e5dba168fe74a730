"""A refusal for now brings every client back by itself: the official ones, old and new, Python's, and our own."""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.clients.staying import ALL, JAVASCRIPT, PYTHON, all_have_said, staying
from tests.gateway.fakes import FakeBroker
from tests.gateway.harness import ISSUING, gateway
from tests.integration.device import registered_device
from tests.integration.services import SECRET, migrated, started

AUTH_LATER_S = 8.0
STREAMING_WITHIN_S = 10.0
# What the deadline for CONNECT was when a slow `auth` function ended in a loop.
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
        told = await stack.enter_async_context(staying(edge.url, token, *ALL))
        await asyncio.sleep(began + AUTH_LATER_S - time.monotonic())
        assert not any("connect" in one.events() for one in told)
        await stack.enter_async_context(started("auth", PORT=str(auth.port), **settings))
        await all_have_said(told, "accepted", time.monotonic(), STREAMING_WITHIN_S)
        assert not any("disconnect" in one.events() for one in told), told


@pytest.mark.timeout(120)
async def test_the_101st_socket_of_a_device_streams_once_the_100_have_closed(fake_broker: FakeBroker) -> None:
    fake_broker.outgoing.auto_confirm = True
    async with gateway(fake_broker) as running, AsyncExitStack() as sockets, AsyncExitStack() as stack:
        for _ in range(100):
            socket = await sockets.enter_async_context(running.raw())
            assert (await socket.receive_str(timeout=5)).startswith("40{")
        told = await stack.enter_async_context(staying(running.url, ISSUING.device(), *ALL))

        def refused() -> float:
            return (
                running.registry.get_sample_value("tidegate_gateway_connects_total", {"outcome": "rate_limited"}) or 0
            )

        async with asyncio.timeout(30):
            while refused() < 3 * len(ALL):
                await asyncio.sleep(0.05)
        assert not any("accepted" in one.events() for one in told)
        await sockets.aclose()
        await all_have_said(told, "accepted", time.monotonic(), STREAMING_WITHIN_S)


@pytest.mark.timeout(120)
async def test_an_auth_function_that_takes_longer_than_the_old_deadline_connects_the_first_time(
    fake_broker: FakeBroker,
) -> None:
    fake_broker.outgoing.auto_confirm = True
    takes_s = OLD_DEADLINE_S + 2
    async with gateway(fake_broker) as running:
        token = ISSUING.device()
        async with staying(running.url, token, *JAVASCRIPT, PYTHON, auth_takes_s=takes_s) as told:
            await all_have_said(told, "accepted", 0.0, takes_s + 10)
            assert [one.events()[:2] for one in told] == [["connect", "accepted"]] * len(told)


@pytest.mark.timeout(120)
async def test_an_auth_function_slower_than_the_deadline_ends_in_a_session_that_lasts(fake_broker: FakeBroker) -> None:
    fake_broker.outgoing.auto_confirm = True
    async with (
        gateway(fake_broker, connect_timeout_seconds=1.0) as running,
        staying(running.url, ISSUING.device(), *JAVASCRIPT, auth_takes_s=3.5) as told,
    ):
        await all_have_said(told, "accepted", 0.0, 20)
        since = time.monotonic()
        # Until what `auth` gives for earlier sockets has come, too: it meets the session as a second CONNECT.
        await asyncio.sleep(6)
        for one in told:
            assert set(one.events(since)) == {"accepted"}, json.dumps(one.lines)
        assert running.count("malformed_total") >= len(told)
