import asyncio
from typing import Any

import pytest

from tests.auth.service import Client, make_settings, running

GONE = "0190b5a0-0000-7000-8000-000000000000"


async def test_a_device_is_registered_under_its_owner(client: Client) -> None:
    token = await client.new_user()
    body = {"name": "press-1", "sensorType": "temperature", "location": {"lat": 48.2, "lon": 16, "alt": 171.5}}
    answer = await client.post("/devices", body, token=token)
    assert answer.status == 201
    assert set(answer.json) == {"id", "name", "sensorType", "location", "createdAt"}
    assert answer.json | body == answer.json
    assert answer.headers["Location"] == f"/devices/{answer.json['id']}"
    assert (await client.get(answer.headers["Location"], token=token)).json == answer.json
    assert client.metric("tidegate_auth_devices_registered_total") == 1


@pytest.mark.parametrize("location", ["", "hall 3", "ł" * 256, {"lat": -90.0, "lon": 180.0}])
async def test_a_location_is_kept_as_it_was_given(client: Client, location: Any) -> None:
    token = await client.new_user()
    device = await client.new_device(token, location=location)
    assert device["location"] == location
    assert (await client.get(f"/devices/{device['id']}", token=token)).json["location"] == location


async def test_a_device_without_a_name_is_named_by_its_id(client: Client) -> None:
    device = await client.new_device(await client.new_user())
    assert device["name"] == device["id"]


async def test_an_owner_has_each_name_once(client: Client) -> None:
    ada, bob = await client.new_user("ada@example.org"), await client.new_user("bob@example.org")
    await client.new_device(ada, name="press-1")
    answer = await client.post("/devices", {"sensorType": "t", "location": "", "name": "press-1"}, token=ada)
    assert (answer.status, answer.json["code"]) == (409, "taken")
    await client.new_device(ada, name="PRESS-1")
    await client.new_device(bob, name="press-1")


async def test_of_registrations_of_one_name_at_once_one_wins(client: Client) -> None:
    token = await client.new_user()
    body = {"sensorType": "t", "location": "", "name": "press-1"}
    answers = await asyncio.gather(*(client.post("/devices", body, token=token) for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409, 409]


async def test_an_owner_has_a_bounded_number_of_devices(database_url: str) -> None:
    async with running(make_settings(database_url, max_devices_per_owner=3)) as client:
        ada, bob = await client.new_user("ada@example.org"), await client.new_user("bob@example.org")
        body = {"sensorType": "t", "location": ""}
        answers = await asyncio.gather(*(client.post("/devices", body, token=ada) for _ in range(6)))
        assert sorted(answer.status for answer in answers) == [201, 201, 201, 403, 403, 403]
        refused = next(answer for answer in answers if answer.status == 403)
        assert (refused.json["code"], refused.json["limit"]) == ("too_many_devices", 3)
        await client.new_device(bob)


async def test_devices_come_in_pages(client: Client) -> None:
    token = await client.new_user()
    made = [(await client.new_device(token, name=f"d{n}"))["id"] for n in range(5)]
    seen: list[str] = []
    cursor = ""
    for expected in (2, 2, 1):
        answer = await client.get(f"/devices?limit=2{cursor}", token=token)
        assert answer.status == 200
        assert len(answer.json["items"]) == expected
        seen += [item["id"] for item in answer.json["items"]]
        cursor = f"&cursor={answer.json.get('nextCursor')}"
    assert "nextCursor" not in answer.json
    assert seen == made
    assert (await client.get("/devices?limit=5", token=token)).json.keys() == {"items"}


async def test_a_device_is_found_by_its_name(client: Client) -> None:
    token = await client.new_user()
    await client.new_device(token, name="null")
    device = await client.new_device(token, name="press-1")
    assert (await client.get("/devices?name=press-1", token=token)).json == {"items": [device]}
    assert (await client.get("/devices?name=PRESS-1", token=token)).json == {"items": []}
    assert len((await client.get("/devices?name=null", token=token)).json["items"]) == 1


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=many", "limit"),
        ("limit=10.0", "limit"),
        ("limit=null", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=" + GONE + "%0A", "cursor"),
        ("name=", "name"),
        ("name=a%20b", "name"),
        ("name=" + "x" * 65, "name"),
        ("name=%00", "name"),
        ("name=%C3%A9", "name"),
    ],
)
async def test_a_wrong_query_is_named(sqlite_client: Client, query: str, field: str) -> None:
    answer = await sqlite_client.get(f"/devices?{query}", token=await sqlite_client.new_user())
    assert (answer.status, answer.fields) == (422, {field: "invalid"})


async def test_another_owners_device_is_not_there(client: Client) -> None:
    ada, bob = await client.new_user("ada@example.org"), await client.new_user("bob@example.org")
    device = await client.new_device(ada, name="press-1")
    for answer in (
        await client.get(f"/devices/{device['id']}", token=bob),
        await client.post(f"/devices/{device['id']}/token", token=bob),
    ):
        assert (answer.status, answer.json["code"]) == (404, "no_such_device")
    assert (await client.get("/devices", token=bob)).json == {"items": []}
    assert (await client.get(f"/devices?cursor={GONE}", token=bob)).json == {"items": []}


@pytest.mark.parametrize("device_id", [GONE, "x", "%00", "%C3%A9", "' OR 1=1 --", GONE.upper(), GONE + "%0A"])
async def test_a_device_that_does_not_exist_is_404(client: Client, device_id: str) -> None:
    token = await client.new_user()
    assert (await client.get(f"/devices/{device_id}", token=token)).status == 404
    assert (await client.post(f"/devices/{device_id}/token", token=token)).status == 404


WRONG_FIELDS: dict[str, list[Any]] = {
    "name": ["", "x" * 65, "a b", "é", "a/b", "name\n", 7, [], {}],
    "sensorType": ["", "x" * 65, "a b", "é", "t\n", None, 7, [], {}],
    "location": [
        *("hall\0", "\x1f", "hall 3\n", "a\x7fb", "\x9f", "a\tb"),
        *("x" * 257, None, 7, [], {}, {"lat": 1}, {"lat": "1", "lon": "2"}, {"lat": None, "lon": 0}),
        *({"lat": 91, "lon": 0}, {"lat": -91, "lon": 0}, {"lat": 0, "lon": 181}, {"lat": 0, "lon": -181}),
        *({"lat": 1, "lon": 2, "radius": 3}, {"lat": 1, "lon": 2, "alt": "high"}),
    ],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field in WRONG_FIELDS for value in WRONG_FIELDS[field]]
)
async def test_a_registration_with_a_wrong_field_names_it(sqlite_client: Client, field: str, value: Any) -> None:
    body = {"name": "press-1", "sensorType": "t", "location": "hall"} | {field: value}
    answer = await sqlite_client.post("/devices", body, token=await sqlite_client.new_user())
    assert (answer.status, [name.split(".")[0] for name in answer.fields]) == (422, [field])


async def test_a_registration_names_all_that_is_wrong(client: Client) -> None:
    answer = await client.post("/devices", {"name": " ", "owner": "bob"}, token=await client.new_user())
    assert answer.status == 422
    assert answer.fields == {
        "owner": "unknown",
        "sensorType": "missing",
        "location": "missing",
        "name": "invalid",
    }


async def test_a_number_that_is_too_large_for_json_is_refused(client: Client) -> None:
    raw = b'{"sensorType": "t", "location": {"lat": 1, "lon": 2, "alt": 1e999}}'
    headers = {"Content-Type": "application/json"}
    answer = await client.post("/devices", data=raw, headers=headers, token=await client.new_user())
    assert answer.status in (400, 422)


async def test_devices_need_a_token_that_may_manage_them(client: Client) -> None:
    token = await client.new_user()
    device = await client.new_device(token)
    path = f"/devices/{device['id']}"
    device_token = (await client.post(f"{path}/token", token=token)).json["token"]
    body = {"sensorType": "t", "location": ""}
    for presented, status in ((None, 401), ("nonsense", 401), (device_token, 403)):
        answers = [
            await client.post("/devices", body, token=presented),
            await client.get("/devices", token=presented),
            await client.get(path, token=presented),
        ]
        assert {answer.status for answer in answers} == {status}
    assert answers[0].json["code"] == "forbidden"
    assert "insufficient_scope" in answers[0].headers["WWW-Authenticate"]


async def test_the_owner_and_the_device_itself_get_tokens_for_it_and_nobody_else(client: Client) -> None:
    owner = await client.new_user()
    one, two = await client.new_device(owner), await client.new_device(owner)
    answer = await client.post(f"/devices/{one['id']}/token", token=owner)
    assert answer.status == 201
    assert set(answer.json) == {"token", "expiresIn"}
    assert answer.json["expiresIn"] == 30 * 86400
    token = answer.json["token"]
    renewed = await client.post(f"/devices/{one['id']}/token", token=token)
    assert renewed.status == 201
    assert renewed.json["token"] != token
    assert (await client.post(f"/devices/{two['id']}/token", token=token)).status == 403
    assert (await client.post(f"/devices/{one['id']}/token")).status == 401
    assert client.metric("tidegate_auth_tokens_issued_total", kind="device") == 2
