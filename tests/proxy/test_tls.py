"""The proxy with TLS, as compose.tls.yaml mounts it: HTTP/2, feeds, and answers that are cut off."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from runtime.http.listen import listen
from testing.servers.ports import free_port
from tests.proxy.name_server import NameServer
from tests.proxy.nginx import enable_tls, running_nginx

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def tls_proxy(folder: Path, upstream: Handler) -> AsyncIterator[int]:
    """Run the proxy with TLS in front of a reader with this handler; yields the TLS port."""
    port, tls_port = free_port(), enable_tls(folder)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", upstream)
    async with NameServer.serving() as names, listen(app, "127.0.0.1", port):
        names.addresses["reader.test"] = ["127.0.0.1"]
        async with running_nginx(folder, names, reader=port):
            yield tls_port


async def run_curl(folder: Path, url: str, *arguments: str) -> tuple[int, str]:
    """Return curl's exit code and what it output."""
    certificate = str(folder / "tls" / "certificate.pem")
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "-N", "--max-time", "20", "--cacert", certificate, *arguments, url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def echo(request: web.Request) -> web.Response:
    return web.json_response({"proto": request.headers["X-Forwarded-Proto"], "host": request.host})


@pytest.mark.parametrize(("option", "spoken"), [("--http2", "2"), ("--http1.1", "1.1")])
async def test_it_speaks_tls_and_http_2_where_a_certificate_is_given(tmp_path: Path, option: str, spoken: str) -> None:
    async with tls_proxy(tmp_path, echo) as port:
        code, output = await run_curl(
            tmp_path, f"https://localhost:{port}/series", option, "-i", "-w", "%{http_version}"
        )
    assert code == 0, output
    assert output.endswith(f'{{"proto": "https", "host": "localhost:{port}"}}{spoken}')
    assert "strict-transport-security: max-age=31536000" in output.lower()


async def test_a_feed_comes_event_by_event_over_http_2(tmp_path: Path) -> None:
    seen = asyncio.Event()

    async def feed(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: first\n\n")
        await asyncio.wait_for(seen.wait(), 20)
        await response.write(b"data: second\n\n")
        return response

    async with tls_proxy(tmp_path, feed) as port:
        process = await asyncio.create_subprocess_exec(
            *("curl", "-sS", "-N", "--http2", "--cacert", str(tmp_path / "tls" / "certificate.pem")),
            f"https://localhost:{port}/live",
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout
        assert await asyncio.wait_for(process.stdout.readline(), 20) == b"data: first\n"
        seen.set()
        assert b"data: second" in (await process.communicate())[0]
        assert process.returncode == 0


@pytest.mark.parametrize("version_option", ["--http2", "--http1.1"])
async def test_an_export_that_is_cut_off_does_not_look_whole(tmp_path: Path, version_option: str) -> None:
    async def export(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/csv"})
        await response.prepare(request)
        await response.write(b"device,sensorType\r\n")
        assert request.transport
        request.transport.abort()
        return response

    async with tls_proxy(tmp_path, export) as port:
        code, output = await run_curl(tmp_path, f"https://localhost:{port}/readings?device=x", version_option)
    assert code != 0, output
