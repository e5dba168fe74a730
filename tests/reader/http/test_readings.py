"""`GET /readings`: which readings, in which order, and their JSON."""

import json
from typing import Any

import pytest

from reader.history.from_mongodb import FromMongoDB
from readings.document import encode_document
from readings.place import Place
from tests.reader.harness import (
    DEVICE,
    SENSOR,
    TS,
    VALUES,
    ReaderClient,
    Store,
    bearer,
    make_reading,
    series,
    user_token,
)


async def test_a_reading_has_the_documented_keys_and_others_only_where_they_were_given(
    reader_client: ReaderClient, store: Store
) -> None:
    place = Place(48.137, 11.575, 520.0)
    await store.insert(
        make_reading(21.5, TS),
        make_reading(
            22, TS + 1, 7, unit="\u00b0C", location="hall 3", tags={"line": "4", "shift": "night"}, quality="good"
        ),
        make_reading(False, TS + 2, location=place, tags={}, quality="bad"),
        make_reading(1, TS + 3, location=Place(1.0, 2.0)),
    )
    answer = await reader_client.readings()
    assert answer.kind == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json == {
        "items": [
            {
                "device": DEVICE,
                "sensorType": SENSOR,
                "ts": "2025-06-15T15:06:40.000Z",
                "seq": 0,
                "value": 21.5,
                "receivedAt": "2025-06-15T15:06:40.250Z",
            },
            {
                "device": DEVICE,
                "sensorType": SENSOR,
                "ts": "2025-06-15T15:06:40.001Z",
                "seq": 7,
                "value": 22,
                "receivedAt": "2025-06-15T15:06:40.251Z",
                "unit": "\u00b0C",
                "location": "hall 3",
                "tags": {"line": "4", "shift": "night"},
                "quality": "good",
            },
            {
                "device": DEVICE,
                "sensorType": SENSOR,
                "ts": "2025-06-15T15:06:40.002Z",
                "seq": 0,
                "value": False,
                "receivedAt": "2025-06-15T15:06:40.252Z",
                "location": {"lat": 48.137, "lon": 11.575, "alt": 520.0},
                "tags": {},
                "quality": "bad",
            },
            {
                "device": DEVICE,
                "sensorType": SENSOR,
                "ts": "2025-06-15T15:06:40.003Z",
                "seq": 0,
                "value": 1,
                "receivedAt": "2025-06-15T15:06:40.253Z",
                "location": {"lat": 1.0, "lon": 2.0},
            },
        ]
    }


async def test_values_come_out_as_they_were_stored(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(*(make_reading(value, TS + number) for number, value in enumerate(VALUES)))
    found = [item["value"] for item in (await reader_client.readings()).items]
    assert found == VALUES
    assert [repr(value) for value in found] == [repr(value) for value in VALUES]  # 1, 1.0 and True are equal


async def test_from_is_included_and_to_is_not_in_both_forms_of_time(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(*(make_reading(number, TS + number) for number in range(10)))

    async def found(**query: Any) -> list[int]:
        return [item["value"] for item in (await reader_client.readings(**query)).items]

    assert await found(from_=TS + 3) == [3, 4, 5, 6, 7, 8, 9]
    assert await found(to=TS + 3) == [0, 1, 2]
    assert await found(from_=TS + 3, to=TS + 6) == [3, 4, 5]
    assert await found(from_=TS + 3, to=TS + 6, order="desc") == [5, 4, 3]
    assert await found(from_=TS + 3, to=TS + 3) == []
    assert await found(from_=TS + 10) == await found(to=TS) == []
    assert await found(from_="2025-06-15T15:06:40.003Z", to="2025-06-15t15:06:40.006z") == [3, 4, 5]
    assert await found(from_="2025-06-15T17:06:40.008+02:00") == [8, 9]  # yarl writes %2B
    assert await found(from_="2025-06-15T10:06:40.008-05:00") == [8, 9]
    assert await found(from_="2025-06-15T15:06:40Z", to="2025-06-15T15:06:41Z") == list(range(10))
    assert await found(from_=-(10**17), to=10**17) == list(range(10))
    assert await found(from_="0001-01-01T00:00:00Z", to="9999-12-31T23:59:59.999Z") == list(range(10))


async def test_a_leap_second_is_queried_as_it_is_stored(reader_client: ReaderClient, store: Store) -> None:
    new_year = 1_483_228_800_000
    await store.insert(*(make_reading(number, new_year + number) for number in (-500, 0, 500)))
    for leap in ("2016-12-31T23:59:60Z", "2016-12-31T23:59:60.999Z", "2017-01-01T00:59:60+01:00"):
        assert [item["value"] for item in (await reader_client.readings(from_=leap)).items] == [0, 500]
        assert [item["value"] for item in (await reader_client.readings(to=leap)).items] == [-500]


async def test_the_order_is_that_of_time_and_seq(reader_client: ReaderClient, store: Store) -> None:
    places = [(TS + 1, 0), (TS + 1, 2**52 - 1), (TS + 1, 2**53 - 1), (TS + 1, 3), (TS, 9), (TS + 2, 0), (TS - 5, 4)]
    await store.insert(*(make_reading(number, ts, seq) for number, (ts, seq) in enumerate(places)))
    ascending = [item["value"] for item in (await reader_client.readings()).items]
    assert [places[number] for number in ascending] == sorted(places)
    assert [item["value"] for item in (await reader_client.readings(order="asc")).items] == ascending
    assert [item["value"] for item in (await reader_client.readings(order="desc")).items] == ascending[::-1]
    assert [item["seq"] for item in (await reader_client.readings()).items] == [seq for _, seq in sorted(places)]


async def test_a_series_is_one_device_and_one_sensor_type_and_no_neighbour(
    reader_client: ReaderClient, store: Store
) -> None:
    names = [("a", "t"), ("a", "t1"), ("a", "T"), ("a:t", "t"), ("aa", "t"), ("b", "t"), ("A", "t")]
    for number, (device, sensor) in enumerate(names):
        await store.insert(make_reading(number, sensor=sensor), device=device)
    for number, (device, sensor) in enumerate(names):
        for order in ("asc", "desc"):
            assert [item["value"] for item in (await reader_client.readings(device, sensor, order=order)).items] == [
                number
            ]


async def test_what_a_known_device_has_not_sent_is_an_empty_page(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(make_reading(1))
    for query in (series(sensor_type="nothing"), series(from_=TS + 1), series(to=TS)):
        answer = await reader_client.fetch("/readings", query)
        assert (answer.status, answer.json) == (200, {"items": []})
        for format_, empty in (("csv", b"device,sensorType,"), ("ndjson", b"")):
            export = await reader_client.fetch("/readings", query | {"format": format_})
            assert (export.status, export.body[:18]) == (200, empty)
        assert (await reader_client.fetch("/readings/buckets", query)).json == {"items": []}
        assert (await reader_client.fetch("/readings/buckets", query | {"values": "all"})).json == {"items": []}


NOBODYS: list[tuple[str, dict[str, Any]]] = [
    ("/readings", {}),
    ("/readings", {"from": TS, "to": TS + 1, "order": "desc"}),
    ("/readings", {"format": "csv"}),
    ("/readings", {"format": "ndjson", "limit": 3}),
    ("/readings/buckets", {}),
    ("/readings/buckets", {"from": TS, "to": TS + 1}),
    ("/readings/buckets", {"values": "all"}),
]


@pytest.mark.parametrize("device", ["press-1", "device", "device-11", "others", "\x00", '{"$gt":""}'])
async def test_an_id_without_any_stored_reading_is_404(reader_client: ReaderClient, store: Store, device: str) -> None:
    await store.insert(make_reading(1))
    await store.insert(make_reading(1), device="others", owner="other")
    for path, query in NOBODYS:
        for method in ("GET", "HEAD"):
            answer = await reader_client.fetch(path, series(device) | query, method=method)
            assert (answer.status, answer.kind) == (404, "application/problem+json"), (path, query, method)
        answer = await reader_client.fetch(path, series(device) | query)
        assert answer.json["code"] == "no_such_device"
        assert "GET /devices?name=" in answer.json["detail"]
        assert "Content-Disposition" not in answer.headers
    for path in ("/series", "/readings/latest", "/series/search"):  # lists stay lists
        answer = await reader_client.fetch(path, {"device": device})
        assert (answer.status, answer.items) == (200, [])
    assert (await reader_client.fetch("/live", {"device": device}, method="HEAD")).status == 200


async def test_a_device_is_known_by_its_readings_or_its_series(reader_client: ReaderClient, store: Store) -> None:
    # Retention has removed the readings of the first; the series of the second is not stored yet.
    await store.insert_series([("quiet", SENSOR)])
    await store.write([encode_document("user-1", "new", make_reading(1))])
    for device in ("quiet", "new"):
        assert (await reader_client.readings(device, "other")).json == {"items": []}
        assert (await reader_client.fetch("/readings/buckets", series(device, "other"))).json == {"items": []}


async def test_the_device_is_not_looked_up_where_something_was_found(
    reader_client: ReaderClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.insert(make_reading(1), make_reading("x", TS + 1))

    async def has_device(*_: Any) -> bool:
        raise AssertionError("it was asked")

    monkeypatch.setattr(FromMongoDB, "has_device", has_device)
    for format_ in ("json", "csv", "ndjson"):
        assert (await reader_client.readings(format=format_)).status == 200
    for query in (series(), series(values="all"), series(from_=TS, to=TS + 1)):
        assert len((await reader_client.fetch("/readings/buckets", query)).items) == 1
    monkeypatch.undo()


async def test_a_page_has_100_readings_unless_a_limit_says_otherwise(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(*(make_reading(number, TS + number) for number in range(1001)))
    assert len((await reader_client.readings()).items) == 100
    for limit in (1, 2, 999, 1000):
        answer = await reader_client.readings(limit=limit)
        assert [item["value"] for item in answer.items] == list(range(limit))
        assert answer.json["nextCursor"]
    assert "nextCursor" not in (await reader_client.readings(from_=TS + 1, limit=1000)).json


BAD: dict[str, list[Any]] = {
    "device": ["", "x" * 257],
    "sensorType": ["", "x" * 257],
    "from": ["", "yesterday", "1.5", "1e3", "2025-06-15", "2025-06-15T15:06:40", "2025-06-15T15:06:40.0001Z", "9" * 19],
    "to": [
        "NaN",
        "2025-02-30T00:00:00Z",
        "2025-06-15T15:06:60Z",
        "2025-06-15 15:06:40Z",
        "2025-06-15T15:06:40+02",
        "\u0661",
        " 1",
        "x" * 65,
    ],
    "order": ["", "up", "ASC", "asc,desc"],
    "limit": ["", "0", "-1", "1001", "ten", "1.5", "10.0", "1e1", "1E2", "99999999999999999999"],
    "cursor": ["", "x", "AAAA", "!!!!", "\u00e4", "A" * 1000, "a.b", "AAAAAAAAAAAAAAAAAAAAAAAA"],
    "format": ["", "xml", "CSV"],
}


@pytest.mark.parametrize("name", BAD)
async def test_a_parameter_in_another_form_is_named(reader_client: ReaderClient, name: str) -> None:
    for value in BAD[name]:
        print(repr(value))
        assert (await reader_client.fetch("/readings", series() | {name: value})).invalid_fields == [name]


async def test_all_that_is_wrong_is_named_at_once(reader_client: ReaderClient) -> None:
    assert (await reader_client.fetch("/readings")).invalid_fields == ["device", "sensorType"]
    assert (await reader_client.fetch("/readings", {"device": DEVICE})).invalid_fields == ["sensorType"]
    assert (await reader_client.fetch("/readings", {"sensorType": SENSOR})).invalid_fields == ["device"]
    answer = await reader_client.fetch("/readings", {"device": "", "limit": 0, "order": "up", "format": "xml"})
    assert answer.invalid_fields == ["device", "sensorType", "order", "limit", "format"]
    assert answer.json["title"] == "Unprocessable Entity"
    assert {"type", "status", "detail"} <= set(answer.json)


async def test_an_end_before_the_beginning_and_a_parameter_given_twice_are_named(reader_client: ReaderClient) -> None:
    assert (await reader_client.readings(from_=TS, to=TS - 1)).invalid_fields == ["to"]
    url = f"/readings?device={DEVICE}&sensorType={SENSOR}&device=other"
    async with reader_client.http.get(reader_client.url + url, headers=bearer(user_token())) as response:
        assert response.status == 422
        assert [error["field"] for error in json.loads(await response.read())["errors"]] == ["device"]


async def test_a_wrong_choice_is_answered_with_the_right_ones(reader_client: ReaderClient) -> None:
    url = f"/readings?device={DEVICE}&sensorType={SENSOR}&format=xml&order=up"
    async with reader_client.http.get(reader_client.url + url, headers=bearer(user_token())) as response:
        assert response.status == 422
        errors = {error["field"]: error["message"] for error in json.loads(await response.read())["errors"]}
    assert errors == {"format": "This must be one of csv, json, ndjson.", "order": "This must be one of asc, desc."}


async def test_a_plus_that_an_address_has_turned_into_a_space_is_explained(reader_client: ReaderClient) -> None:
    answer = await reader_client.readings(from_="2025-06-15T15:06:40 02:00")
    assert answer.invalid_fields == ["from"]
    assert "%2B" in answer.json["errors"][0]["message"]


async def test_any_text_is_a_name_and_none_is_more(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(make_reading(2), device="other")
    for name in ("\x00", "a\x00b", "\u65e5\u672c", "\U0001f321", "a b", '{"$gt":""}', "$where", "a.b", "../etc", "%41"):
        await store.insert(make_reading(name, sensor=name), device=name)
        assert [item["value"] for item in (await reader_client.readings(name, name)).items] == [name]
        assert (
            (await reader_client.readings(name, SENSOR)).items
            == (await reader_client.readings("other", name)).items
            == []
        )


async def test_other_methods_are_refused_with_the_allowed_ones(reader_client: ReaderClient) -> None:
    for method in ("PUT", "DELETE", "PATCH", "POST"):
        answer = await reader_client.fetch("/readings", series(), method=method)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")
