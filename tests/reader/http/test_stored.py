"""`POST /readings/stored`: which of a device's readings are stored, in whatever place."""

import json
import random
from typing import Any

import jsonschema_rs
import pytest
from bson.datetime_ms import DatetimeMS

from runtime.mongodb import mongodb_client
from tests.reader.harness import (
    DEVICE,
    ISSUING,
    SENSOR,
    TS,
    ReaderClient,
    Response,
    Store,
    bearer,
    make_reading,
    user_token,
)
from tools.openapi_file import FILE


async def ask(reader_client: ReaderClient, body: Any, token: str | None = None, **headers: str) -> Response:
    sent = bearer(ISSUING.device() if token is None else token) | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    async with reader_client.http.post(f"{reader_client.url}/readings/stored", json=body, headers=sent) as response:
        return Response(response, await response.read())


def about(*positions: tuple[int, int], sensor: str = SENSOR) -> dict[str, Any]:
    return {"items": [{"sensorType": sensor, "readings": [list(one) for one in positions]}]}


async def test_what_is_stored_is_listed_in_the_same_form(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(make_reading(1, TS, 1), make_reading(2, TS, 2), make_reading(3, TS + 1, 0, sensor="t2"))
    asked = {
        "items": [
            {"sensorType": SENSOR, "readings": [[TS, 3], [TS, 2], [TS - 1, 1], [TS, 1], [TS, 1], [TS + 5, 1]]},
            {"sensorType": "t2", "readings": [[TS + 1, 0]]},
            {"sensorType": "unknown", "readings": [[TS, 1]]},
        ]
    }
    expected = [
        {"sensorType": SENSOR, "readings": [[TS, 1], [TS, 2]]},
        {"sensorType": "t2", "readings": [[TS + 1, 0]]},
    ]
    assert (await ask(reader_client, asked)).items == expected
    assert (await ask(reader_client, asked, user_token(), X_Device_Id=DEVICE)).items == expected
    assert reader_client.count("readings_total", how="stored") == 6


async def test_readings_far_apart_are_found(reader_client: ReaderClient, store: Store, rng: random.Random) -> None:
    await store.insert(*(make_reading(number, TS + number * 10, number % 3) for number in range(20_000)))
    wanted = rng.sample(range(20_500), 990)
    asked = about(*((TS + number * 10, number % 3) for number in wanted), (TS, 2), (TS + 5, 0))
    found = (await ask(reader_client, asked)).items
    expected = [[TS + number * 10, number % 3] for number in sorted(wanted) if number < 20_000]
    assert found == [{"sensorType": SENSOR, "readings": expected}]


async def test_answers_are_as_described_also_if_nothing_is_stored(reader_client: ReaderClient, store: Store) -> None:
    described = json.loads(FILE.read_text())
    found = described["paths"]["/readings/stored"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    await store.insert(make_reading(1))
    for position, count in (((TS, 0), 1), ((TS + 1, 0), 0)):
        answer = await ask(reader_client, about(position))
        assert len(answer.items) == count
        jsonschema_rs.validate(found | {"components": described["components"]}, answer.json)


async def test_nobody_learns_of_readings_of_others(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(make_reading(1))
    for token in (ISSUING.device(device="device-2", sub="device-2"), ISSUING.device(owner="user-2")):
        assert (await ask(reader_client, about((TS, 0)), token)).items == []
    assert (await ask(reader_client, about((TS, 0)), user_token("user-2"), X_Device_Id=DEVICE)).items == []
    other = await ask(reader_client, about((TS, 0)), X_Device_Id="device-2")
    assert (other.status, other.json["code"]) == (403, "forbidden")


async def test_a_token_needs_a_scope_of_readings_and_a_users_one_names_the_device(reader_client: ReaderClient) -> None:
    refused = await ask(reader_client, about((TS, 0)), user_token(scope="devices:manage"), X_Device_Id=DEVICE)
    assert refused.status == 403
    for headers in ({}, {"X_Device_Id": "no such id!"}):
        answer = await ask(reader_client, about((TS, 0)), user_token(), **headers)
        assert (answer.status, answer.json["code"]) == (422, "device_required")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"items": []},
        {"items": [{"sensorType": SENSOR, "readings": []}]},
        {"items": [{"sensorType": "no such type!", "readings": [[TS, 0]]}]},
        about((TS, -1)),
        about((2**60, 0)),
        {"items": [{"sensorType": SENSOR, "readings": [[TS]]}]},
        {"items": [{"sensorType": SENSOR, "readings": [[str(TS), 0]]}]},
        {"items": [{"sensorType": SENSOR, "readings": [[TS, 0]], "more": 1}]},
        about(*((TS, number) for number in range(1001))),
    ],
)
async def test_a_question_of_another_form_is_refused(reader_client: ReaderClient, body: Any) -> None:
    answer = await ask(reader_client, body)
    assert (answer.status, answer.kind) == (422, "application/problem+json")


async def test_at_most_1000_readings_over_all_series(reader_client: ReaderClient) -> None:
    one, other = (about(*((TS, at) for at in range(count)), sensor=f"t{count}") for count in (501, 500))
    answer = await ask(reader_client, {"items": one["items"] + other["items"]})
    assert (answer.status, answer.json["code"]) == (422, "batch_size")
    assert [error["code"] for error in answer.json["errors"]] == ["batch_size"]
    half = about(*((TS, at) for at in range(500)), sensor="t")
    assert (await ask(reader_client, {"items": other["items"] + half["items"]})).items == []


async def test_the_longest_question_is_answered(reader_client: ReaderClient) -> None:
    largest = 2**53 - 1
    items = [{"sensorType": f"{number:064}", "readings": [[largest, largest]]} for number in range(1000)]
    assert len(json.dumps({"items": items})) > 130_000
    assert (await ask(reader_client, {"items": items})).items == []
    answer = await ask(reader_client, {"items": items, "more": "x" * 300_000})
    assert (answer.status, answer.json["code"]) == (413, "too_large")


async def test_a_document_that_is_no_reading_is_not_listed(
    reader_client: ReaderClient, mongodb_database: tuple[str, str]
) -> None:
    url, database = mongodb_database
    key = {"owner": "user-1", "device": DEVICE, "sensorType": SENSOR, "ts": DatetimeMS(TS)}
    async with mongodb_client(url, name="test", timeout_s=10) as client:
        await client[database]["readings"].insert_one({"_id": key, "value": 1})
    assert (await ask(reader_client, about((TS - 1, 0), (TS, 0)))).items == []
