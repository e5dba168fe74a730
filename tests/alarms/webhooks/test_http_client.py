"""Calls of webhooks, to real servers on loopback, which is allowed here."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_network
from random import Random
from typing import Any

import pytest
from aiohttp import web

from alarms.webhooks.addresses import AddressGuard
from alarms.webhooks.http_client import MAX_ANSWER_BYTES, CallFailedError, WebhookClient
from alarms.webhooks.retries import FIRST_RETRY_S, LONGEST_PAUSE_S, pause_s
from runtime.http.listen import listen

LOOPBACK = AddressGuard([ip_network("127.0.0.0/8"), ip_network("::1")])
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def receiver(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with listen(app, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}"


async def called(url: str, *, guard: AddressGuard = LOOPBACK, timeout_s: float = 30) -> int | str:
    """Call a webhook; return the status of its answer, or why it failed."""
    async with WebhookClient.opened(guard, timeout_s=timeout_s) as client:
        try:
            return await client.post(url, {"webhook-id": "1"}, b'{"a": 1}')
        except CallFailedError as error:
            failed = error
    assert str(failed) == failed.status
    assert failed.is_gone is (failed.status == "410")
    return failed.status


async def test_what_is_sent() -> None:
    seen: list[tuple[object, ...]] = []

    async def handler(request: web.Request) -> web.Response:
        names = ("webhook-id", "Content-Type")
        seen.append((request.method, *(request.headers[name] for name in names), await request.read()))
        return web.Response(status=202, headers={"Set-Cookie": "a=b"})

    async with receiver(handler) as url:
        assert await called(url) == 202
    assert seen == [("POST", "1", "application/json", b'{"a": 1}')]


@pytest.mark.parametrize("status", [304, 400, 404, 410, 429, 500, 503])
async def test_every_status_but_2xx_is_a_failure(status: int) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, text="what it says is nobody's business")

    async with receiver(handler) as url:
        assert await called(url) == str(status)


async def test_a_redirect_is_not_followed() -> None:
    paths: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    async with receiver(handler) as url:
        assert await called(f"{url}/hook") == "307"
    assert paths == ["/hook"]


async def test_a_receiver_that_hangs_is_given_up() -> None:
    ended = asyncio.Event()

    async def handler(_: web.Request) -> web.Response:
        await ended.wait()
        return web.Response()

    async with receiver(handler) as url:
        assert await called(url, timeout_s=0.2) == "timeout"
        ended.set()


async def test_an_answer_without_end_is_cut_off() -> None:
    sent, cut = 0, asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 4096)
                sent += 4096
                await asyncio.sleep(0)
        except (ConnectionError, asyncio.CancelledError):
            cut.set()
            raise

    async with receiver(handler) as url:
        assert await called(url) == 200, "its status says that it was told"
        async with asyncio.timeout(30):
            await cut.wait()
    assert sent > MAX_ANSWER_BYTES


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=204 if request.path == "/hook" else 500)

    async with receiver(handler) as url:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert await called(f"{url}/hook") == 204


async def test_an_address_that_is_not_allowed_is_not_connected_to() -> None:
    async def handler(_: web.Request) -> web.Response:
        raise AssertionError("nobody may come here")

    async with receiver(handler) as url:
        assert await called(url, guard=AddressGuard()) == "address_refused"
        assert await called(url.replace("127.0.0.1", "localhost"), guard=AddressGuard()) == "address_refused"


async def test_a_receiver_that_is_not_there() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response()

    async with receiver(handler) as url:
        pass
    assert await called(url) == "connection"
    assert await called("http://[::1") == "connection"


def test_pauses_grow_up_to_a_bound_and_differ_a_little() -> None:
    rng = Random(1)
    pauses = [pause_s(attempts, rng) for attempts in range(1, 40)]
    assert 0.8 * FIRST_RETRY_S <= pauses[0] <= 1.2 * FIRST_RETRY_S
    assert max(pauses) <= 1.2 * LONGEST_PAUSE_S
    assert min(pauses[8:]) >= 0.8 * LONGEST_PAUSE_S
    assert len(set(pauses)) == len(pauses)


async def test_names_that_do_not_resolve_keep_no_other_from_being_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    ask = socket.getaddrinfo

    def hangs(host: str, *rest: Any, **more: Any) -> Any:
        if host.startswith("hangs"):
            answers.wait()
        return ask("127.0.0.1", *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", hangs)

    async def handler(_: web.Request) -> web.Response:
        return web.Response()

    try:
        async with receiver(handler) as url, WebhookClient.opened(LOOPBACK, timeout_s=30) as client:
            port = url.rpartition(":")[2]
            hanging = [asyncio.create_task(client.post(f"http://hangs{at}.test:{port}/", {}, b"")) for at in range(60)]
            assert await client.post(f"http://answers.test:{port}/", {}, b"") == 200
            answers.set()
            assert await asyncio.gather(*hanging) == [200] * 60
    finally:
        answers.set()
