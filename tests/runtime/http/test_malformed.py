"""Requests that are refused before any application: the response is a problem, and it arrives."""

import asyncio
import io
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from runtime.http import malformed
from runtime.http.bodies import json_response, read_bytes
from runtime.http.listen import listen
from runtime.http.problems import problem_middleware


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async def size(request: web.Request) -> web.Response:
        return json_response(len(await read_bytes(request, 100_000)))

    async def unread(_: web.Request) -> web.Response:
        return json_response("I have seen enough")

    app = web.Application(middlewares=[problem_middleware])
    app.add_routes([web.post("/size", size), web.post("/unread", unread)])
    async with listen(app, "127.0.0.1", 0) as it:
        yield it


async def exchange(port: int, *parts: bytes) -> tuple[int, dict[str, str], Any]:
    """Send raw bytes and return status, headers and body of the first answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(10):
            for part in parts:
                writer.write(part)
                await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            raw = await reader.readexactly(int(headers.get("content-length", 0)))
    finally:
        writer.close()
    return int(head[0].split()[1]), headers, msgspec.json.decode(raw) if raw else None


def request_with(*headers: bytes, line: bytes = b"POST /size HTTP/1.1", body: bytes = b"") -> bytes:
    return b"\r\n".join([line, b"Host: here", *headers, b"", body])


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"rubbish\r\n\r\n", 400),
        (request_with(line=b"GET / HTTP/9.9"), 400),
        (request_with(line=b"GET /\xff HTTP/1.1"), 400),
        (request_with(b"Content-Length: -1"), 400),
        (request_with(b"Content-Length: 1", b"Content-Length: 2"), 400),
        (request_with(b"Content-Length: 1", b"Transfer-Encoding: chunked"), 400),
        (request_with(b"No colon"), 400),
        (request_with(b"Transfer-Encoding: chunked", body=b"zz\r\n"), 400),
        (request_with(b"Expect: a-miracle", b"Content-Length: 0"), 417),
        (request_with(b"Content-Length: 100001"), 413),
        (request_with(line=b"POST /" + b"x" * 10_000 + b" HTTP/1.1"), 414),
        (request_with(line=b"GET /size?q=" + b"%20" * 3_000 + b" HTTP/1.1"), 414),
        (request_with(line=b"GET http://here/size?q=" + b"x" * 300_000 + b" HTTP/1.1"), 414),
        (request_with(line=b"GET bearer" + b"x" * 10_000 + b" HTTP/1.1"), 400),
        (request_with(b"Cookie: " + b"x" * 10_000), 431),
        (request_with(b"X-Path: /" + b"x" * 10_000), 431),
        (request_with(b"X-" + b"x" * 10_000 + b": 1"), 431),
        (request_with(b"Authorization: Bearer " + b"x" * 10_000), 401),
        (request_with(b"Authorization: bearer " + b"x" * 1_000_000), 401),
    ],
)
async def test_it_is_a_problem(port: int, raw: bytes, status: int) -> None:
    answered, headers, body = await exchange(port, raw)
    assert (answered, headers["content-type"]) == (status, "application/problem+json")
    assert body["status"] == status
    assert ("www-authenticate" in headers) == (status == 401)


async def test_an_address_that_comes_in_pieces_is_too_long_all_the_same(port: int) -> None:
    assert (await exchange(port, b"GET /size?q=", *[b"x" * 1000] * 20))[0] == 414


async def test_a_client_that_sends_and_sends_gets_its_answer(port: int) -> None:
    head = request_with(b"Authorization: Bearer " + b"x" * 100_000)[:-4]
    status, _, body = await exchange(port, head, *[b"x" * 100_000] * 20)
    assert (status, body["detail"]) == (401, "The token is too long.")


async def test_nobody_fills_the_log_with_refusals(port: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await exchange(port, b"rubbish\r\n\r\n")
        await exchange(port, request_with(b"Transfer-Encoding: chunked", body=b"zz\r\n"))
    assert not caplog.records


async def test_a_refused_connection_ends_within_its_bounds(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(malformed, "LINGER_S", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"rubbish\r\n\r\n")
    async with asyncio.timeout(10):
        await reader.read()  # to the end, which the server makes
    writer.close()

    monkeypatch.setattr(malformed, "LINGER_S", 60.0)
    monkeypatch.setattr(malformed, "LINGER_BYTES", 1_000_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with pytest.raises(OSError):  # noqa: PT011 - a reset or a broken pipe, as it falls
        await send_without_end(writer)
    writer.close()


async def send_without_end(writer: asyncio.StreamWriter) -> None:
    async with asyncio.timeout(30):
        while True:
            writer.write(b"rubbish\r\n\r\n" * 1000)
            await writer.drain()
            await asyncio.sleep(0)


@pytest.mark.parametrize("path", ["/size", "/unread", "/nowhere"])
async def test_a_small_body_that_was_not_read_leaves_the_connection_open(port: int, path: str) -> None:
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector) as session:
        for _ in range(2):
            async with session.post(path, data=b"x" * 50_000) as answer:
                await answer.read()
                assert "Connection" not in answer.headers


async def test_a_large_body_that_was_not_read_ends_the_connection(port: int) -> None:
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        session.post("/unread", data=io.BytesIO(b"x" * 3_000_000)) as answer,
    ):
        assert (answer.status, answer.headers["Connection"]) == (200, "close")
        assert await answer.json() == "I have seen enough"
