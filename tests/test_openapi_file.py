"""docs/protocol/openapi.json says what the services do."""

from typing import Any, get_args
from uuid import UUID

import msgspec
import pytest
import schemathesis

from runtime.calls import Call
from tests.openapi_file import FILE, PAGE, calls_of_all_services, rendered


@pytest.fixture
async def calls() -> list[Call]:
    return await calls_of_all_services()


async def test_the_file_is_the_one_that_the_calls_make() -> None:
    assert (FILE.read_text(), PAGE.read_text()) == await rendered(), "run: make openapi"


async def test_the_file_is_valid_openapi() -> None:
    schemathesis.openapi.from_dict(msgspec.json.decode(FILE.read_bytes())).validate()


async def test_every_body_refuses_fields_that_it_does_not_know(calls: list[Call]) -> None:
    structs = {struct for call in calls if call.body is not None for struct in structs_of(call.body)}
    assert structs
    for struct in structs:
        assert struct.__struct_config__.forbid_unknown_fields, struct


def structs_of(body: Any) -> set[Any]:
    """The structs in a body, which may be one, an array of them, or either."""
    if isinstance(body, msgspec.Meta):  # a bound on what it stands beside
        return set()
    return set().union(*map(structs_of, get_args(body))) if get_args(body) else {body}


async def test_every_call_says_in_a_line_what_it_does(calls: list[Call]) -> None:
    for call in calls:
        assert call.summary, call.path
        assert "\n" not in call.summary
        assert not call.summary.endswith("."), call.path
        assert len(call.summary) <= 60, call.summary


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
