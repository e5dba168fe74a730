"""Bodies and problems over a real connection: every fault has its status, and none reveals internals."""

import asyncio
import gzip
import logging
import zlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from runtime.http import bodies
from runtime.http.bodies import json_response, read_json
from runtime.http.listen import listen
from runtime.http.problems import FieldError, Problem, problem_middleware

JSON = {"Content-Type": "application/json"}


class Address(msgspec.Struct, forbid_unknown_fields=True):
    city: str


class Person(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    age: int = 0
    address: Address | None = None


async def people(request: web.Request) -> web.Response:
    person = await read_json(request, Person, max_bytes=1000)
    return json_response({"name": person.name}, status=201)


async def broken(_: web.Request) -> web.Response:
    raise RuntimeError("hunter2 is the password")


async def limited(_: web.Request) -> web.Response:
    raise Problem(429, "Slow down.", code="rate_limited", headers={"Retry-After": "3"}, extra={"retryAfterMs": 3000})


async def listed(_: web.Request) -> web.Response:
    raise Problem(422, errors=(FieldError("name", "taken", "It is taken."),))


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    app = web.Application(middlewares=[problem_middleware])
    app.add_routes([web.post("/people", people), web.get("/people/{id}", broken), web.delete("/people", broken)])
    app.add_routes([web.get("/broken", broken), web.get("/limited", limited), web.get("/listed", listed)])
    async with listen(app, "127.0.0.1", 0) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
        yield client


async def problem(answer: aiohttp.ClientResponse, status: int) -> dict[str, Any]:
    body = await answer.json(content_type="application/problem+json")
    assert answer.status == body["status"] == status, body
    assert body["type"] == "about:blank"
    assert body["title"]
    assert body["detail"]
    return dict(body)


async def post(session: aiohttp.ClientSession, body: bytes, status: int, **headers: str) -> dict[str, Any]:
    async with session.post("/people", data=body, headers=JSON | headers) as answer:
        return await problem(answer, status)


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
async def test_a_good_body_is_decoded_and_its_answer_is_not_cached(
    session: aiohttp.ClientSession, content_type: str
) -> None:
    headers = {"Content-Type": content_type}
    async with session.post("/people", data='{"name":"Zoë"}'.encode(), headers=headers) as answer:
        assert (answer.status, await answer.json()) == (201, {"name": "Zoë"})
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"name":}',
        b'{"name":NaN}',
        b'{"name":"a"}x',
        b'{"name":"\xff"}',
        b'{"name":"\\ud800"}',
        b'{"age":Infinity,"name":"a"}',
        b"\x00",
        b"\xef\xbb\xbf{}",
        b'{"name":"a","name":"a"}',
        b'{"name":"a","n\\u0061me":"b"}',
        b'{"name":"a","address":{"city":"b","city":"c"}}',
        b'{"name":1,"role":7',
        b'{"name":"a","age":1e999}',
        b'{"age":' + b"1" * 900 + b"e" + b"9" * 50 + b"}",
        b"[" * 1000,
        b'{"name":' + b"[" * 400 + b"NaN" + b"]" * 400 + b"}",
    ],
)
async def test_what_is_not_json_is_400(session: aiohttp.ClientSession, body: bytes) -> None:
    await post(session, body, 400)


PACKED = gzip.compress(b'{"name":"a"}', mtime=0)


@pytest.mark.parametrize(
    "packed",
    [b"", b"no gzip", PACKED[:12] + b"corrupt", PACKED[:-1], PACKED[:-8] + bytes(8), PACKED + b"x", PACKED + PACKED],
)
async def test_a_compressed_body_that_is_corrupt_is_400(session: aiohttp.ClientSession, packed: bytes) -> None:
    await post(session, packed, 400, **{"Content-Encoding": "gzip"})
    await post(session, b"{", 400)  # the connection goes on


@pytest.mark.parametrize(
    ("encoding", "packed"), [("gzip", PACKED), ("GZIP", PACKED), ("deflate", zlib.compress(b'{"name":"a"}'))]
)
async def test_a_compressed_body_is_unpacked(session: aiohttp.ClientSession, encoding: str, packed: bytes) -> None:
    headers = JSON | {"Content-Encoding": encoding}
    async with session.post("/people", data=packed, headers=headers) as answer:
        assert (answer.status, await answer.json()) == (201, {"name": "a"})


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", "x"])
async def test_another_packing_is_415_and_says_which_are_taken(session: aiohttp.ClientSession, encoding: str) -> None:
    async with session.post("/people", data=PACKED, headers=JSON | {"Content-Encoding": encoding}) as answer:
        await problem(answer, 415)
        assert answer.headers["Accept-Encoding"] == "gzip, deflate"


async def test_a_compressed_body_is_measured_by_what_it_becomes(session: aiohttp.ClientSession) -> None:
    await post(session, gzip.compress(b" " * 900_000), 413, **{"Content-Encoding": "gzip"})
    await post(session, gzip.compress(b" " * 50_000_000), 413, **{"Content-Encoding": "gzip"})


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""])
async def test_another_type_is_415(session: aiohttp.ClientSession, content_type: str) -> None:
    await post(session, b'{"name":"a"}', 415, **{"Content-Type": content_type})


async def test_another_charset_is_415(session: aiohttp.ClientSession) -> None:
    await post(session, b'{"name":"a"}', 415, **{"Content-Type": "application/json; charset=utf-16"})


async def test_a_body_beyond_its_bound_is_413_with_and_without_a_length(session: aiohttp.ClientSession) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100

    await post(session, b" " * 1001, 413)
    async with session.post("/people", data=parts(), headers=JSON) as answer:
        await problem(answer, 413)
    await post(session, b" " * 1000, 400)


async def test_a_body_that_does_not_arrive_is_408(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODY_TIMEOUT_S", 0.1)
    arrived = asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        yield b'{"name":'
        await arrived.wait()

    async with session.post("/people", data=parts(), headers=JSON) as answer:
        await problem(answer, 408)
        arrived.set()


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ('{"name":"a","role":"admin"}', "role", "unknown"),
        ('{"name":"a","address":{"city":"b","zip":1}}', "address.zip", "unknown"),
        ("{}", "name", "missing"),
        ('{"name":"a","address":{}}', "address.city", "missing"),
        ('{"name":1}', "name", "invalid"),
        ('{"name":"a","age":"1"}', "age", "invalid"),
        ('{"name":"a","age":1.5}', "age", "invalid"),
        ('{"name":"a","address":{"city":1}}', "address.city", "invalid"),
        ("[]", "", "invalid"),
    ],
)
async def test_a_body_of_the_wrong_form_is_422_and_names_the_field(
    session: aiohttp.ClientSession, body: str, field: str, code: str
) -> None:
    (error,) = (await post(session, body.encode(), 422))["errors"]
    assert (error["field"], error["code"]) == (field, code)
    assert error["message"]


async def test_all_wrong_fields_are_named_at_once_but_not_without_end(session: aiohttp.ClientSession) -> None:
    body = msgspec.json.encode({"age": "x", "address": {"zip": 1}, "role": 1, "admin": 2})
    errors = (await post(session, body, 422))["errors"]
    assert [error["field"] for error in errors] == ["role", "admin", "name", "age", "address.zip"]
    many = msgspec.json.encode({str(number): 1 for number in range(100)})
    assert len((await post(session, many, 422))["errors"]) == 20


async def test_options_tells_what_may_be_done(session: aiohttp.ClientSession) -> None:
    async with session.options("/people") as answer:
        assert (answer.status, await answer.read()) == (204, b"")
        assert set(answer.headers["Allow"].split(",")) == {"POST", "DELETE"}


async def test_a_wrong_method_is_405_and_says_which_are_allowed(session: aiohttp.ClientSession) -> None:
    async with session.put("/people") as answer:
        assert set(answer.headers["Allow"].split(",")) == {"POST", "DELETE"}
        await problem(answer, 405)


async def test_an_unknown_path_is_404(session: aiohttp.ClientSession) -> None:
    async with session.get("/nowhere") as answer:
        assert "/nowhere" in (await problem(answer, 404))["detail"]


async def test_an_unexpected_exception_is_500_without_details_and_is_logged(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[str] = []
    monkeypatch.setattr("runtime.http.problems.log", logging.getLogger("a test's"))
    monkeypatch.setattr(logging.Logger, "exception", lambda _self, message, **_: logged.append(message))
    async with session.get("/broken") as answer:
        text = await answer.text()
        await problem(answer, 500)
    assert "hunter2" not in text
    assert "RuntimeError" not in text
    assert logged == ["A request failed."]


async def test_a_problem_carries_its_code_headers_and_further_members(session: aiohttp.ClientSession) -> None:
    async with session.get("/limited") as answer:
        body = await problem(answer, 429)
        assert answer.headers["Retry-After"] == "3"
    assert (body["code"], body["detail"], body["retryAfterMs"]) == ("rate_limited", "Slow down.", 3000)
    async with session.get("/listed") as answer:
        assert (await problem(answer, 422))["errors"] == [{"field": "name", "code": "taken", "message": "It is taken."}]
