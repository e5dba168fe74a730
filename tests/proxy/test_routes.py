"""How the proxy routes requests, what it adds, and what it blocks, in front of services that echo requests."""

import asyncio
import gzip
import io
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from testing.servers.ports import free_port
from tests.gateway.harness import UPGRADE
from tests.proxy.name_server import NameServer
from tests.proxy.nginx import CONFIG, SERVICES, Proxy, running_nginx

SERVICE = web.AppKey("service", str)
FULL_GATEWAY = "a full gateway"


async def echo(request: web.Request) -> web.StreamResponse:
    """Respond with the request; `/live` streams."""
    service = request.app[SERVICE]
    if request.headers.get("Upgrade") == "websocket" and service == FULL_GATEWAY:
        problem = {"type": "about:blank", "status": 503, "code": "busy", "retryAfterMs": 7000}
        return web.json_response(
            problem, status=503, headers={"Retry-After": "7"}, content_type="application/problem+json"
        )
    if request.headers.get("Upgrade") == "websocket":
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"{service} received {message.data}")
        return socket
    if request.path == "/live":
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        for number in range(3):
            await stream.write(f"data: {number}\n\n".encode() + b" " * 2000)
            await asyncio.sleep(0.2)
        return stream
    body = await request.read()
    headers = {name.lower(): value for name, value in request.headers.items()}
    echoed = {"service": service, "path": request.path, "method": request.method, "headers": headers}
    return web.json_response({**echoed, "size": len(body), "long": "x" * 3000})


@asynccontextmanager
async def echo_service(service: str, address: str, port: int) -> AsyncIterator[None]:
    app = web.Application(client_max_size=10 * 1024 * 1024)
    app[SERVICE] = service
    app.router.add_route("*", "/{path:.*}", echo)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    try:
        yield
    finally:
        await runner.cleanup()


class ProxyFixture:
    """The proxy and the services behind it."""

    def __init__(self, proxy: Proxy, names: NameServer, ports: dict[str, int], http: aiohttp.ClientSession) -> None:
        self.proxy = proxy
        self.names = names
        self.ports = ports
        self.http = http

    async def get(self, path: str, method: str = "GET", **options: Any) -> tuple[int, Any, Any]:
        """Return status, headers and the body, decoded if it is JSON."""
        async with self.http.request(method, path, **options) as answer:
            body = await answer.read()
            return answer.status, answer.headers, json.loads(body) if "json" in answer.content_type else body


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[ProxyFixture]:
    ports = {name: free_port() for name in SERVICES}
    async with AsyncExitStack() as stack:
        names = await stack.enter_async_context(NameServer.serving())
        for name, port in ports.items():
            names.addresses[f"{name}.test"] = ["127.0.0.1"]
            await stack.enter_async_context(echo_service(name, "127.0.0.1", port))
        proxy = await stack.enter_async_context(running_nginx(tmp_path, names, **ports))
        http = await stack.enter_async_context(
            aiohttp.ClientSession(proxy.url, auto_decompress=False, headers={"Accept-Encoding": "identity"})
        )
        yield ProxyFixture(proxy, names, ports, http)


@pytest.mark.parametrize(
    ("method", "path", "service"),
    [
        ("POST", "/user/signup", "auth"),
        ("POST", "/user/login", "auth"),
        ("GET", "/user/token", "auth"),
        ("DELETE", "/user/me", "auth"),
        ("POST", "/keys", "auth"),
        ("DELETE", "/keys/1", "auth"),
        ("POST", "/provisioning", "auth"),
        ("DELETE", "/provisioning/1", "auth"),
        ("GET", "/devices?name=a", "auth"),
        ("POST", "/devices/batch?tokens=true", "auth"),
        ("POST", "/devices/claim", "auth"),
        ("DELETE", "/devices/1/claim", "auth"),
        ("POST", "/devices/1/token", "auth"),
        ("GET", "/.well-known/jwks.json", "auth"),
        ("POST", "/readings", "gateway"),
        ("GET", "/socket.io/?EIO=4&transport=polling", "gateway"),
        ("GET", "/socket.io?EIO=4&transport=polling", "gateway"),
        ("GET", "/alarms?state=firing", "alarms"),
        ("POST", "/alarms/rules", "alarms"),
        ("GET", "/readings?device=a&sensorType=b", "reader"),
        ("GET", "/readings/latest", "reader"),
        ("GET", "/readings/buckets", "reader"),
        ("GET", "/series", "reader"),
        ("GET", "/series/search?text=a", "reader"),
        ("GET", "/pipeline", "reader"),
        ("GET", "/devices/1/gaps?sensorType=a", "reader"),
        ("POST", "/readings/stored", "reader"),
        ("GET", "/", "reader"),
        ("GET", "/dashboard/app.js", "reader"),
        ("POST", "/simulator/devices", "simulator"),
        ("GET", "/grafana/login", "grafana"),
    ],
)
async def test_each_call_reaches_its_service(front: ProxyFixture, method: str, path: str, service: str) -> None:
    status, _, echoed = await front.get(path, method)
    assert (status, echoed["service"], echoed["path"], echoed["method"]) == (
        200,
        service,
        path.partition("?")[0],
        method,
    )


@pytest.mark.parametrize(
    "path", ["/revocations", "/alarms/watched", "/metrics", "/healthz", "/readyz", "/nothing", "/.env"]
)
async def test_internal_paths_are_not_routed(front: ProxyFixture, path: str) -> None:
    status, headers, echoed = await front.get(path)
    assert (status, headers["Content-Type"], echoed["status"]) == (404, "application/problem+json", 404)


async def test_addresses_that_a_client_claims_are_ignored(front: ProxyFixture) -> None:
    forged = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https", "X-Real-Ip": "6.6.6.6"}
    _, _, echoed = await front.get("/user/token", headers=forged)
    seen = echoed["headers"]
    assert (seen["x-forwarded-for"], seen["x-forwarded-proto"]) == ("127.0.0.1", "http")
    assert seen["x-forwarded-host"] == seen["host"] == f"127.0.0.1:{front.proxy.port}"
    assert len(seen["x-request-id"]) == 32


async def test_log_ins_are_rate_limited_and_other_calls_are_not(front: ProxyFixture) -> None:
    started = time.monotonic()
    answers = await asyncio.gather(*(front.get("/user/login", "POST") for _ in range(100)))
    passed = [status for status, _, _ in answers].count(200)
    assert 51 <= passed <= 51 + 10 * (time.monotonic() - started) + 1, "a burst of 50, then 10 a second"
    for _, headers, echoed in (answer for answer in answers if answer[0] != 200):
        assert (echoed["status"], echoed["code"], headers["Retry-After"]) == (429, "rate_limited", "1")
        assert headers["Content-Type"] == "application/problem+json"
    assert (await front.get("/user/token"))[0] == 200


async def test_bodies_and_headers_have_a_bound(front: ProxyFixture) -> None:
    assert (await front.get("/readings", "POST", data=io.BytesIO(b"x" * 1_100_000)))[2]["size"] == 1_100_000
    status, headers, echoed = await front.get("/readings", "POST", data=io.BytesIO(b"x" * 2_200_000))
    assert (status, headers["Content-Type"], echoed["code"]) == (413, "application/problem+json", "too_large")
    assert (await front.get("/readings/stored", "POST", data=io.BytesIO(b"x" * 150_000)))[2]["size"] == 150_000
    four_mib = 4 * 1024 * 1024
    assert (await front.get("/devices/batch", "POST", data=io.BytesIO(b"x" * four_mib)))[2]["size"] == four_mib
    assert (await front.get("/devices/batch", "POST", data=io.BytesIO(b"x" * (four_mib + 1))))[0] == 413
    for path in ("/readings/stored", "/readings/latest", "/devices", "/devices/claim", "/keys", "/provisioning"):
        assert (await front.get(path, "POST", data=io.BytesIO(b"x" * 270_000)))[0] == 413
    assert (await front.get("/user/token", headers={"Authorization": "Bearer " + "x" * 8100}))[0] == 200
    for path, more, code in (("/user/token", {"X": "x" * 70_000}, 431), ("/series?q=" + "x" * 70_000, {}, 414)):
        status, headers, echoed = await front.get(path, headers=more)
        assert (status, headers["Content-Type"], echoed["status"]) == (code, "application/problem+json", code)
    assert (await front.get("/problem/address_too_long"))[0] == 404  # not from outside


async def test_every_answer_has_the_headers_that_browsers_heed(front: ProxyFixture) -> None:
    for path in ("/user/token", "/nothing", "/docs"):
        _, headers, _ = await front.get(path)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Server"] == "nginx"  # without its version


async def test_json_is_packed_and_an_event_stream_is_not_and_comes_as_it_is_sent(front: ProxyFixture) -> None:
    async with front.http.get("/series", headers={"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert json.loads(gzip.decompress(await answer.read()))["service"] == "reader"
    loop = asyncio.get_running_loop()
    async with front.http.get("/live", headers={"Accept-Encoding": "gzip"}) as answer:
        assert "Content-Encoding" not in answer.headers
        came = []
        async for piece in answer.content.iter_any():
            came += [loop.time()] * piece.count(b"data:")
    assert len(came) == 3
    assert came[2] - came[0] > 0.3


async def test_a_websocket_goes_through(front: ProxyFixture) -> None:
    async with front.http.ws_connect("/socket.io/?EIO=4&transport=websocket") as socket:
        await socket.send_str("hello")
        assert (await socket.receive_str(timeout=5)) == "gateway received hello"


async def test_a_temporarily_refusing_gateway_is_skipped_and_its_response_returned_when_all_refuse(
    front: ProxyFixture,
) -> None:
    path = "/socket.io/?EIO=4&transport=websocket"
    async with echo_service(FULL_GATEWAY, "127.0.0.2", front.ports["gateway"]):
        front.names.addresses["gateway.test"] = ["127.0.0.2"]
        await until_answered(front, path, 503)
        status, headers, echoed = await front.get(path, headers=UPGRADE)
        assert (status, headers.getall("Retry-After"), echoed["code"]) == (503, ["7"], "busy")
        front.names.addresses["gateway.test"] = ["127.0.0.2", "127.0.0.1"]
        await until_answered(front, path, 101)
        await asyncio.sleep(2.1)  # each worker of nginx caches an address for a second, counted in whole ones
        for _ in range(10):
            async with front.http.ws_connect(path) as socket:
                await socket.send_str("hello")
                assert (await socket.receive_str(timeout=5)) == "gateway received hello"
    assert re.search(r'"upstream":"127.0.0.2:\d+, 127.0.0.1:\d+"', front.proxy.log), "the full gateway was never tried"


async def until_answered(front: ProxyFixture, path: str, status: int) -> None:
    """Request upgrades until the proxy has resolved the name again."""
    answered = 0
    async with asyncio.timeout(60):
        while answered != status:
            async with front.http.get(path, headers=UPGRADE) as answer:
                answered = answer.status


async def test_replicas_are_found_as_they_come_and_go(front: ProxyFixture) -> None:
    front.names.addresses["reader.test"] = ["127.0.0.2"]  # nothing listens there yet
    status = 200
    async with asyncio.timeout(60):
        while status != 503:
            status, headers, echoed = await front.get("/series")
    assert (headers["Retry-After"], echoed["code"], headers["Content-Type"]) == (
        "2",
        "unavailable",
        "application/problem+json",
    )
    async with echo_service("another reader", "127.0.0.2", front.ports["reader"]):
        assert (await front.get("/series"))[2]["service"] == "another reader"
        # One replica is gone, one runs: every request is answered.
        front.names.addresses["reader.test"] = ["127.0.0.3", "127.0.0.2"]
        await asyncio.sleep(1.2)
        assert [(await front.get("/series"))[0] for _ in range(10)] == [200] * 10


async def test_the_description_of_all_calls_and_its_page_are_served(front: ProxyFixture) -> None:
    _, _, document = await front.get("/openapi.json")
    assert {"/user/login", "/readings", "/live", "/series"} <= set(document["paths"])
    status, headers, page = await front.get("/docs")
    assert (status, headers["Content-Type"].partition(";")[0]) == (200, "text/html")
    assert b"/readings/buckets" in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]


async def test_each_request_is_one_line_of_json_without_its_query(front: ProxyFixture) -> None:
    await front.get('/series?token=secret"x', headers={"User-Agent": 'quo"te'})
    async with asyncio.timeout(60):
        while '"path":"/series"' not in front.proxy.log:  # it is written after the response
            await asyncio.sleep(0.02)
    entry = json.loads(front.proxy.log.splitlines()[-1])
    assert (entry["path"], entry["status"], entry["method"], entry["client"]) == ("/series", 200, "GET", "127.0.0.1")
    assert "secret" not in front.proxy.log


def test_each_services_conf_names_every_service_and_a_resolver() -> None:
    for file in (
        CONFIG.with_name("services.conf"),
        *CONFIG.parents[1].glob("deploy/kubernetes/overlays/*/services.conf"),
    ):
        text = file.read_text()
        assert "resolver " in text
        for name in SERVICES:
            assert re.search(rf'^map "" \${name} {{ default {name}[.\w]*:\d+; }}$', text, re.MULTILINE), (file, name)
