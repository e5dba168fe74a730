"""docs/protocol/openapi.json describes what the services do."""

from typing import Any, get_args
from uuid import UUID

import msgspec
import pytest
import schemathesis

from auth.http.bodies import Position
from runtime.http.operation import Operation
from runtime.http.wording import patterns
from simulator.serve import StartDevice
from tools.openapi_file import FILE, PAGE, operations_of_all_services, rendered

Schema = dict[str, Any]


@pytest.fixture
async def calls() -> list[Operation]:
    return await operations_of_all_services()


async def test_the_file_is_the_one_that_the_calls_make() -> None:
    assert (FILE.read_text(), PAGE.read_text()) == await rendered(), "run: make openapi"


async def test_the_file_is_valid_openapi() -> None:
    schemathesis.openapi.from_dict(msgspec.json.decode(FILE.read_bytes())).validate()


async def test_every_body_refuses_fields_that_it_does_not_know(calls: list[Operation]) -> None:
    structs = {struct for call in calls if call.body is not None for struct in structs_of(call.body)}
    assert structs
    for struct in structs:
        assert struct.__struct_config__.forbid_unknown_fields, struct


def structs_of(body: Any) -> set[Any]:
    """The structs in a body, which may be one, an array of them, or either."""
    if isinstance(body, msgspec.Meta):  # a bound on what it stands beside
        return set()
    return set().union(*map(structs_of, get_args(body))) if get_args(body) else {body}


async def test_every_call_says_in_a_line_what_it_does(calls: list[Operation]) -> None:
    for call in calls:
        assert call.summary, call.path
        assert "\n" not in call.summary
        assert not call.summary.endswith("."), call.path
        assert len(call.summary) <= 60, call.summary


@pytest.fixture
def schemas() -> dict[str, Schema]:
    found: dict[str, Schema] = msgspec.json.decode(FILE.read_bytes())["components"]["schemas"]
    return found


def parts_of(schema: Any) -> list[Schema]:
    """Every schema in a document, however deep."""
    if isinstance(schema, list):
        return [part for item in schema for part in parts_of(item)]
    return [schema, *parts_of(list(schema.values()))] if isinstance(schema, dict) else []


def test_no_field_of_a_body_or_an_answer_has_a_default(schemas: dict[str, Schema]) -> None:
    assert len(schemas) > 20
    for name, schema in schemas.items():
        for part in parts_of(schema):
            assert "default" not in part, name


def test_descriptions_name_fields_as_json_has_them() -> None:
    assert "next_cursor" not in FILE.read_text()


def test_a_place_is_described_once_with_its_bounds(schemas: dict[str, Schema]) -> None:
    places = {name: schema for name, schema in schemas.items() if {"lat", "lon"} <= set(schema.get("properties", ()))}
    assert list(places) == ["Place"]
    described = {
        name: (part["minimum"], part["maximum"])
        for name, part in places["Place"]["properties"].items()
        if name != "alt"
    }
    checked = msgspec.json.schema_components([Position])[1]["Position"]["properties"]
    assert described == {name: (part["minimum"], part["maximum"]) for name, part in checked.items() if name != "alt"}
    with_place = [
        name for name, schema in schemas.items() if "Place" in str(schema.get("properties", {}).get("location"))
    ]
    assert {"NewDevice", "DeviceChange", "DeviceAnswer", "Claims", "ReadingSent", "ReadingAnswer"} <= set(with_place)


def test_every_time_in_an_answer_says_so(schemas: dict[str, Schema]) -> None:
    times = {
        f"{name}.{field}": part
        for name, schema in schemas.items()
        for field, part in schema.get("properties", {}).items()
        if (field == "ts" or field.endswith("At")) and schema.get("additionalProperties") is not False
    }
    assert {"UserAnswer.createdAt", "ReadingAnswer.receivedAt", "Bucket.ts", "SeriesItem.lastSeenAt"} <= set(times)
    for name, schema in times.items():
        text = [part for part in parts_of(schema) if part.get("type") == "string"]
        assert [part.get("format") for part in text] == ["date-time"], name


def test_no_call_describes_a_header_that_openapi_leaves_to_others() -> None:
    described = msgspec.json.decode(FILE.read_bytes())
    names = [part["name"].lower() for part in parts_of(described["paths"]) if part.get("in") == "header"]
    assert "x-device-id" in names
    assert not {"accept", "content-type", "authorization"} & set(names)


def test_json_comes_first_where_it_is_among_others() -> None:
    several = [
        list(part["content"])
        for part in parts_of(msgspec.json.decode(FILE.read_bytes()))
        if len(part.get("content", ())) > 1
    ]
    assert several
    assert {kinds[0] for kinds in several} == {"application/json"}


async def test_every_pattern_has_words_for_whom_it_refuses(calls: list[Operation]) -> None:
    taken = [StartDevice, *(kind for call in calls for kind in (call.body, call.query) if kind is not None)]
    found = {pattern: words for kind in taken for pattern, words in patterns(kind).items()}
    assert len(found) >= 5
    assert all(found.values()), found


async def test_a_device_is_asked_for_by_its_id_in_every_example() -> None:
    """A name there would be an example that reads nothing."""
    paths = msgspec.json.decode(FILE.read_bytes())["paths"]
    asked = [
        (path, example)
        for path, calls in paths.items()
        for call in calls.values()
        for parameter in call.get("parameters", [])
        if parameter["in"] == "query" and parameter["name"] == "device"
        for example in parameter["schema"].get("examples", [])
    ]
    assert {path for path, _ in asked} >= {"/readings", "/readings/buckets", "/readings/latest", "/series", "/live"}
    for path, example in asked:
        assert UUID(example).version == 7, path
