"""`POST /devices/batch` over HTTP. Two owners where rights are concerned."""

import asyncio
import csv
import gzip
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from auth.device_import import CHUNK_ROWS, DeviceImport
from auth.http.device_batch import MAX_ADMITTED
from runtime.http.problems import Problem
from tests.auth.service import Answer, Client, claims_of, is_active, make_settings, running

CSV = {"Content-Type": "text/csv"}
PLACE = {"lat": 48.2, "lon": 16.0}


def row(name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "sensorType": "temperature", "location": "hall 3"} | changes


async def batch(client: Client, rows: Any, token: str, query: str = "", **more: Any) -> Answer:
    return await client.post(f"/devices/batch{query}", rows, token=token, **more)


async def items_of(client: Client, rows: Any, token: str, query: str = "") -> list[dict[str, Any]]:
    answer = await batch(client, rows, token, query)
    assert answer.status == 200, answer.raw
    items: list[dict[str, Any]] = answer.json["items"]
    assert [item["index"] for item in items] == list(range(len(rows)))
    return items


async def named(client: Client, token: str) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in (await client.get("/devices?limit=1000", token=token)).json["items"]}


async def test_every_row_has_its_own_outcome_and_a_repeat_gives_the_same_devices(client: Client) -> None:
    ada, bob = await client.new_user(), await client.new_user("bob@example.org")
    other = await client.new_device(bob, name="a")
    rows = [
        row("a"),
        row("b", location=PLACE),
        row("a"),
        row("a", sensorType="pressure"),
        row("bad name"),
        {"sensorType": "temperature"},
        7,
        row("c", extra=1),
    ]
    items = await items_of(client, rows, ada)
    stored = await named(client, ada)
    assert stored.keys() == {"a", "b"}
    assert items[:3] == [{"index": n, "id": stored[name]["id"], "name": name} for n, name in enumerate("aba")]
    assert [item["code"] for item in items[3:]] == ["taken", "invalid", "invalid", "invalid", "invalid"]
    assert "name" in items[4]["detail"]
    assert "extra" in items[7]["detail"]
    assert stored["b"]["location"] == PLACE
    assert stored["a"]["id"] != other["id"]

    assert await items_of(client, rows, ada) == items
    assert await named(client, ada) == stored
    assert (await named(client, bob)).keys() == {"a"}
    assert client.metric("tidegate_auth_devices_registered_total") == 3
    assert await items_of(client, [], ada) == []


async def test_csv_is_read_and_written_as_json_is(client: Client) -> None:
    token = await client.new_user()
    text = (
        '\ufefflocation,name,sensorType\r\n"hall 3, left",a,temperature\r\n\r\n'
        '"{""lat"":48.2,""lon"":16.0}",b,pressure\r\nhall,c\r\nhall,é,temperature\r\n'
    )
    headers = CSV | {"Accept": "text/csv;q=0.9, application/json;q=0.5", "Content-Encoding": "gzip"}
    answer = await batch(client, None, token, "?tokens=true", data=gzip.compress(text.encode()), headers=headers)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/csv; charset=utf-8"), answer.raw
    found = list(csv.DictReader(io.StringIO(answer.raw.decode(), newline="")))
    assert [line["code"] for line in found] == ["", "", "invalid", "invalid"]
    stored = await named(client, token)
    assert stored["a"]["location"] == "hall 3, left"
    assert stored["b"]["location"] == PLACE
    assert [line["id"] for line in found[:2]] == [stored["a"]["id"], stored["b"]["id"]]
    for line, kind in zip(found, ("temperature", "pressure"), strict=False):
        assert claims_of(line["token"])["device"] == line["id"]
        assert claims_of(line["token"])["sensorType"] == kind
        assert await is_active(client, line["token"])


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ('{"lat": 48.2, "lon": 16}', PLACE),
        (' {"lon":16,"lat":48.2,"alt":3} ', PLACE | {"alt": 3.0}),
        ('{"lat":91,"lon":16}', "location.lat: This must be at most 90."),
        ('{"lat":1}', "location.lon: This field is required."),
        ('{"lat":1,"lat":2,"lon":3}', "location: This must be text, or the JSON of a position."),
        ("{hall 3}", "location: This must be text, or the JSON of a position."),
        ("two\nlines", "location: This must be one line of text, without control characters."),
        ("x" * 257, "location: This must have at most 256 characters."),
        ("", ""),
    ],
)
async def test_a_location_in_braces_is_a_position_however_it_is_written_or_its_row_is_refused(
    sqlite_client: Client, location: str, expected: Any
) -> None:
    token, text = await sqlite_client.new_user(), io.StringIO(newline="")
    csv.writer(text).writerows([("name", "sensorType", "location"), ("a", "t", location), ("b", "t", "roof")])
    answer = await batch(sqlite_client, None, token, data=text.getvalue().encode(), headers=CSV)
    first, second = answer.json["items"]
    stored = await named(sqlite_client, token)
    assert (second["id"], stored["b"]["location"]) == (stored["b"]["id"], "roof")
    if "code" in first:
        assert (first["code"], first["detail"]) == ("invalid", expected)
    else:
        assert stored["a"]["location"] == expected


async def test_ten_thousand_rows_of_few_names_are_as_many_devices_as_names(client: Client) -> None:
    token = await client.new_user()
    lines = [f"d{n % 7},temperature,{'roof' if n % 1000 == 999 else 'hall'}" for n in range(10_000)]
    data = "\r".join(["name,sensorType,location", *lines]).encode()
    items = (await batch(client, None, token, data=data, headers=CSV)).json["items"]
    stored = await named(client, token)
    assert stored.keys() == {f"d{n}" for n in range(7)}
    assert [item["index"] for item in items] == list(range(10_000))
    taken = [item["index"] for item in items if item.get("code") == "taken"]
    assert taken == list(range(999, 10_000, 1000))
    assert all(item["id"] == stored[f"d{n % 7}"]["id"] for n, item in enumerate(items) if "code" not in item)
    answer = await batch(client, None, token, data=data, headers=CSV | {"Accept": "text/csv"})
    assert len(answer.raw.split(b"\r\n")) == 10_002


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"[{", {"Content-Type": "application/json"}, 400),
        (b'{"name":"a"}', {"Content-Type": "application/json"}, 422),
        (b"[1]", {"Content-Type": "application/xml"}, 415),
        (b"[1]", {"Content-Type": "application/json; charset=latin-1"}, 415),
        (b"name,sensorType\r\n", CSV, 422),
        (b"name,name,sensorType,location\r\n", CSV, 422),
        (b"name,sensorType,location,colour\r\n", CSV, 422),
        (b"", CSV, 422),
        (b"name,sensorType,location\r\n\xff,t,\r\n", CSV, 400),
        (b'name,sensorType,location\r\n"a"b,t,\r\n', CSV, 400),
        (b"name,sensorType,location\r\n" + b"a,t,h\r\n" * 10_001, CSV, 413),
        (b"[" + b"1," * 10_000 + b"1]", {"Content-Type": "application/json"}, 413),
        (b" " * (4 * 1024 * 1024 + 1), CSV, 413),
    ],
)
async def test_a_body_that_has_no_rows_is_refused_whole(
    sqlite_client: Client, body: bytes, headers: dict[str, str], status: int
) -> None:
    token = await sqlite_client.new_user()
    answer = await batch(sqlite_client, None, token, data=io.BytesIO(body), headers=headers)
    assert answer.status == status, answer.raw
    assert (await batch(sqlite_client, [], token)).status == 200


async def test_the_limit_of_an_owner_refuses_the_rows_beyond_it(database_url: str) -> None:
    async with running(make_settings(database_url, max_devices_per_owner=300)) as client:
        ada, bob = await client.new_user(), await client.new_user("bob@example.org")
        rows = [row(f"d{n}") for n in range(305)]
        items = await items_of(client, rows[:200], ada)
        items = await items_of(client, rows, ada)
        assert [item.get("code") for item in items] == [None] * 300 + ["too_many_devices"] * 5
        assert len(await named(client, ada)) == 300
        assert (await items_of(client, rows[304:], bob))[0]["name"] == "d304"


async def test_imports_and_registrations_of_the_same_names_at_once_make_each_device_once(client: Client) -> None:
    token = await client.new_user()
    names = [f"d{n}" for n in range(3 * CHUNK_ROWS)]

    async def single(name: str) -> None:
        answer = await client.post("/devices", row(name), token=token)
        assert answer.status in (201, 409), answer.raw

    items, *_ = await asyncio.gather(
        items_of(client, [row(name) for name in names], token), *(single(name) for name in names[-20:])
    )
    stored = await named(client, token)
    assert {item["name"]: item["id"] for item in items} == {name: one["id"] for name, one in stored.items()}
    assert len(stored) == len(names)


async def test_tokens_of_an_api_key_end_with_it_and_a_limited_key_imports_nothing(client: Client) -> None:
    token = await client.new_user()
    device = await client.new_device(token)
    body = {"name": "import", "scope": ["devices:manage"]}
    key = (await client.post("/keys", body, token=token)).json
    limited = (await client.post("/keys", body | {"devices": [device["id"]]}, token=token)).json
    reading = (await client.post("/keys", body | {"scope": ["readings:read"]}, token=token)).json
    for refused in (
        limited["key"],
        reading["key"],
        (await client.post(f"/devices/{device['id']}/token", token=token)).json["token"],
    ):
        assert (await batch(client, [row("a")], refused)).status == 403
    assert (await client.post("/devices/batch", [row("a")])).status == 401
    with capture_logs() as logs:
        items = await items_of(client, [row("a"), row("b")], key["key"], "?tokens=true")
    line = next(entry for entry in logs if entry["event"] == "Devices were imported.")
    assert (line["by"], line["registered"]) == (key["id"], [item["id"] for item in items])
    assert line["tokens_of"] == line["registered"]
    assert items[0]["token"] not in json.dumps(logs, default=str)
    assert client.metric("tidegate_auth_tokens_issued_total", kind="device") == 3
    assert claims_of(items[0]["token"])["issuingKey"] == key["id"]
    assert await is_active(client, items[0]["token"])
    assert (await client.call("DELETE", f"/keys/{key['id']}", token=token)).status == 204
    assert not await is_active(client, items[0]["token"])


async def test_rows_after_an_outage_are_to_be_sent_again(
    sqlite_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await sqlite_client.new_user()
    register, calls = DeviceImport._register_in, iter(range(10))

    async def failing(self: DeviceImport, *arguments: Any) -> Any:
        if next(calls) == 1:
            raise Problem(503, "The users' database does not answer; try again.", code="unavailable")
        return await register(self, *arguments)

    monkeypatch.setattr(DeviceImport, "_register_in", failing)
    rows = [row(f"d{n}") for n in range(3 * CHUNK_ROWS)]
    items = await items_of(sqlite_client, rows, token)
    assert [item.get("code") for item in items] == [None] * CHUNK_ROWS + ["unavailable"] * 2 * CHUNK_ROWS
    assert len(await named(sqlite_client, token)) == CHUNK_ROWS
    again = await items_of(sqlite_client, rows, token)
    assert again[:CHUNK_ROWS] == items[:CHUNK_ROWS]
    assert [item for item in again if "code" in item] == []
    monkeypatch.setattr(DeviceImport, "_register_in", lambda *_: failing_first())
    assert (await batch(sqlite_client, rows, token)).status == 503


async def failing_first() -> None:
    raise Problem(503, "The users' database does not answer; try again.", code="unavailable")


async def test_an_owner_has_one_import_at_a_time_and_all_together_a_bounded_number(sqlite_client: Client) -> None:
    users = [await sqlite_client.new_user(f"user{n}@example.org") for n in range(MAX_ADMITTED + 1)]
    finished = asyncio.Event()

    async def slow_body() -> AsyncIterator[bytes]:
        yield b"["
        await finished.wait()
        yield b"]"

    async def slow(token: str) -> None:
        headers = {"Content-Type": "application/json"}
        while (answer := await batch(sqlite_client, None, token, data=slow_body(), headers=headers)).status == 503:
            pass  # a quick one was there before
        assert answer.json == {"items": []}

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(slow(users[0]))
        refused = await until_busy(sqlite_client, users[0])
        assert refused.headers["Retry-After"] == "2"
        assert (await batch(sqlite_client, [row("a")], users[1])).status == 200
        for token in users[1:MAX_ADMITTED]:
            tasks.create_task(slow(token))
        await until_busy(sqlite_client, users[MAX_ADMITTED])
        finished.set()
    assert (await batch(sqlite_client, [row("a")], users[MAX_ADMITTED])).status == 200


async def until_busy(client: Client, token: str) -> Answer:
    """Repeat an import until it is refused: the slow ones may not have been admitted yet."""
    async with asyncio.timeout(10):
        while (answer := await batch(client, [], token)).status == 200:
            pass
    assert (answer.status, answer.json["code"]) == (503, "busy")
    return answer


@pytest.mark.parametrize("path", ["/devices/batch", "/devices/claim"])
async def test_its_path_is_no_devices(sqlite_client: Client, path: str) -> None:
    token = await sqlite_client.new_user()
    for method in ("GET", "PATCH", "DELETE"):
        answer = await sqlite_client.call(method, path, token=token)
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert (await sqlite_client.get(f"{path}es", token=token)).status == 404
