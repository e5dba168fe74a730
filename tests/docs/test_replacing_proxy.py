"""HAProxy instead of the shipped proxy, and the shipped proxy behind another, as in docs/proxies.md."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from testing.servers.ports import free_port
from tests.docs.pages import block, page, replace_all, write_file
from tests.docs.proxies import PAGE, running_proxy
from tests.gateway.harness import UPGRADE
from tests.proxy.name_server import NameServer
from tests.proxy.nginx import running_nginx

SOCKET = "/socket.io/?EIO=4&transport=websocket"


class Service:
    """Responds with its name and X-Forwarded-For; a full one refuses temporarily."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.full = False
        self.refused = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.full:
            self.refused += 1
            return web.Response(status=503, headers={"Retry-After": "7"})
        if "Upgrade" not in request.headers:
            return web.json_response({"service": self.name, "for": request.headers.get("X-Forwarded-For")})
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(self.name)
        async for message in socket:
            await socket.send_str(f"{self.name} received {message.data}")
        return socket

    @asynccontextmanager
    async def listening(self, address: str, port: int) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, address, port).start()
        try:
            yield
        finally:
            await runner.cleanup()


class ReplacedProxy:
    """HAProxy, and the five processes behind it."""

    def __init__(self, url: str, http: aiohttp.ClientSession, services: dict[str, Service]) -> None:
        self.url = url
        self.http = http
        self.services = services

    async def service_of(self, method: str, path: str) -> str:
        async with self.http.request(method, self.url + path) as answer:
            return str((await answer.json())["service"]) if answer.status == 200 else str(answer.status)


@pytest.fixture
async def behind(tmp_path: Path) -> AsyncIterator[ReplacedProxy]:
    places = re.findall(r"server ([\w-]+) ([\d.]+):(\d+)", block(PAGE, "In its place"))
    ports = {port: free_port() for _, _, port in places}
    services = {name: Service(name) for name, _, _ in places}
    assert list(services) == ["auth-1", "alarms-1", "gateway-1", "gateway-2", "reader-1"]
    async with AsyncExitStack() as stack:
        for name, address, port in places:
            await stack.enter_async_context(services[name].listening(address, ports[port]))
        changes = {f":{port}": f":{free}" for port, free in ports.items()}
        front = await stack.enter_async_context(
            running_proxy(tmp_path, "haproxy", 0, heading="In its place", changes=changes)
        )
        yield ReplacedProxy(front.url, front.http, services)


async def test_each_call_reaches_the_service_that_the_page_names(behind: ReplacedProxy) -> None:
    rows = re.findall(r"^\| `(\w+)`, \d+ \| (.*) \|$", page(PAGE), re.MULTILINE)
    assert [name for name, _ in rows] == ["auth", "alarms", "gateway", "reader"]
    calls_made = 0
    for name, calls in rows:
        for call in re.findall(r"`([^`]+)`", calls.partition(";")[0]):
            method, path = call.rpartition(" ")[::2]
            found = await behind.service_of(method or "GET", path.replace("…", "x"))
            assert found.rpartition("-")[0] == name, call
            calls_made += 1
    assert calls_made == 22
    for internal in ("/revocations", "/alarms/watched"):
        assert await behind.service_of("GET", internal) == "404"


async def test_a_full_gateway_is_skipped_and_its_response_returned_when_all_are_full(behind: ReplacedProxy) -> None:
    gateways = [behind.services["gateway-1"], behind.services["gateway-2"]]
    gateways[0].full = True
    for _ in range(6):
        async with behind.http.ws_connect(behind.url + SOCKET) as device:
            assert await device.receive_str(timeout=5) == "gateway-2"
            await device.send_str("hello")
            assert await device.receive_str(timeout=5) == "gateway-2 received hello"
    gateways[1].full = True
    async with behind.http.get(behind.url + SOCKET, headers=UPGRADE) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "7")


async def test_readings_that_were_refused_are_not_sent_to_the_other_gateway_by_the_proxy(behind: ReplacedProxy) -> None:
    gateways = [behind.services["gateway-1"], behind.services["gateway-2"]]
    for one in gateways:
        one.full = True
    assert await behind.service_of("POST", "/readings") == "503"
    assert sum(one.refused for one in gateways) == 1


async def test_the_shipped_proxy_trusts_the_configured_proxy_in_front_of_it(tmp_path: Path) -> None:
    config = block(PAGE, "In front of the proxy that ships")
    port = free_port()
    async with (
        NameServer.serving() as names,
        Service("auth").listening("127.0.0.1", port),
        aiohttp.ClientSession() as http,
    ):
        names.addresses["auth.test"] = ["127.0.0.1"]
        headers = {"X-Forwarded-For": "6.6.6.6, 203.0.113.7"}
        for network, expected in (("127.0.0.0/8", "203.0.113.7"), ("10.0.0.0/8", "127.0.0.1")):
            folder = tmp_path / network[:2]
            folder.mkdir()
            write_file(folder, "services.conf", replace_all(config, {"172.16.0.0/12": network}))
            async with (
                running_nginx(folder, names, auth=port) as proxy,
                http.get(proxy.url + "/user/token", headers=headers) as answer,
            ):
                assert (await answer.json())["for"] == expected
                async with asyncio.timeout(60):
                    while f'"client":"{expected}"' not in proxy.log:  # it is written after the response
                        await asyncio.sleep(0.02)
