"""A list of operations becomes a valid OpenAPI document, and a page without external resources."""

import json
import re
from collections.abc import AsyncIterator
from html import unescape
from typing import Annotated, Any, Literal

import aiohttp
import msgspec
import pytest
import schemathesis
from aiohttp import web
from msgspec import Meta

from runtime.http.bodies import json_response
from runtime.http.docs import ApiInfo, add_docs, document
from runtime.http.fields import Body
from runtime.http.listen import listen
from runtime.http.openapi import openapi_document
from runtime.http.operation import Operation
from runtime.http.problems import problem_middleware

Name = Annotated[str, Meta(max_length=5, pattern=r"^[a-z]+$(?!\n)", examples=["ada"])]


class NewShip(Body):
    """A ship that
    does not sail yet.
    """

    ship_name: Name
    masts: int | None = None


class Ship(msgspec.Struct, rename="camel"):
    ship_name: str


class Berth(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Where a ship lies."""

    pier: Annotated[int, Meta(extra_json_schema={"minimum": 1})]
    depth: float | None = None


class CheckedBerth(Berth, forbid_unknown_fields=True, omit_defaults=True):
    pier: Annotated[int, Meta(ge=1)]
    depth: float | None = None


class Mooring(Body):
    berth: str | CheckedBerth
    hours: int = 1


class Moored(msgspec.Struct, omit_defaults=True):
    berth: str | Berth
    pilot: str | None = None
    tug: str | int | None = None
    flags: list[str] = []


class Manifest(msgspec.Struct):
    crates: int
    kind: Literal["dry"] = "dry"
    note: str | None = None
    next: str | msgspec.UnsetType = msgspec.UNSET


class ShipQuery(msgspec.Struct, rename="camel"):
    built_after: int
    limit: Annotated[int, Meta(ge=1, le=9)] = 5


async def answer(_: web.Request) -> web.Response:
    return json_response(Ship("ada"))


BUILD = Operation(
    method="POST",
    path="/ships",
    handler=answer,
    tag="ships",
    summary="Build `one` <ship>",
    body=NewShip,
    responses={201: Ship},
    headers={201: {"Location": "where it floats"}},
    problems=(409,),
    secured=True,
)
LIST = Operation(
    method="GET", path="/ships", handler=answer, tag="ships", summary="List", query=ShipQuery, responses={200: Ship}
)
SHOW = Operation(
    method="GET", path="/ships/{id:[0-9]+}/log", handler=answer, tag="logs", summary="Read", responses={200: Ship}
)
SINK = Operation(
    method="DELETE", path="/ships/{id}", handler=answer, tag="ships", summary="Sink", responses={204: None}
)
SECRET = Operation(
    method="GET", path="/plans", handler=answer, tag="ships", summary="Spy", responses={200: Ship}, internal=True
)
API = ApiInfo("Ships", "1", "Where ships lie.")
CALLS = [BUILD, LIST, SHOW, SINK, SECRET]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    app = web.Application(middlewares=[problem_middleware])
    app.add_routes([call.route() for call in CALLS])
    add_docs(app, API, CALLS)
    async with listen(app, "127.0.0.1", 0) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
        yield client


def operation(method: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = document(API, CALLS)["paths"][path][method]
    return found


def test_the_document_is_valid_openapi() -> None:
    described = document(API, CALLS)
    assert described["openapi"] == "3.1.0"
    schemathesis.openapi.from_dict(described).validate()


def test_a_body_is_described_by_the_type_that_validates_it() -> None:
    assert operation("post", "/ships")["requestBody"]["content"] == {
        "application/json": {"schema": {"$ref": "#/components/schemas/NewShip"}}
    }
    schema = document(API, CALLS)["components"]["schemas"]["NewShip"]
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["shipName"]
    assert schema["properties"]["shipName"]["pattern"] == "^[a-z]+$"  # ECMAScript's, not Python's
    assert schema["description"] == "A ship that does not sail yet."


def test_the_parameters_are_those_of_path_and_query() -> None:
    assert [item["name"] for item in operation("get", "/ships/{id}/log")["parameters"]] == ["id"]
    after, limit = operation("get", "/ships")["parameters"]
    assert (after["name"], after["in"], after["required"]) == ("builtAfter", "query", True)
    assert (limit["required"], limit["schema"]) == (
        False,
        {"type": "integer", "minimum": 1, "maximum": 9, "default": 5},
    )


@pytest.mark.parametrize(
    ("call", "statuses"),
    [
        (BUILD, {201, 400, 401, 408, 409, 413, 414, 415, 422, 431, 503}),
        (LIST, {200, 400, 414, 422, 431, 503}),
        (SHOW, {200, 400, 414, 431, 503}),
        (SINK, {204, 400, 414, 431, 503}),
    ],
)
def test_every_status_that_can_happen_is_described(call: Operation, statuses: set[int]) -> None:
    assert set(operation(call.method.lower(), call.template)["responses"]) == {str(status) for status in statuses}


def test_answers_say_their_headers_and_their_form() -> None:
    created = operation("post", "/ships")["responses"]["201"]
    assert created["headers"]["Location"]["required"] is True
    assert "content" not in operation("delete", "/ships/{id}")["responses"]["204"]
    unauthorized = document(API, CALLS)["components"]["responses"]["Unauthorized"]
    assert unauthorized["headers"]["WWW-Authenticate"]["required"] is True
    assert list(unauthorized["content"]) == ["application/problem+json"]


def test_only_calls_that_take_a_token_ask_for_one() -> None:
    assert operation("post", "/ships")["security"] == [{"bearer": []}]
    assert operation("get", "/ships")["security"] == []


def test_an_internal_call_is_not_told_to_the_public() -> None:
    assert "/plans" not in document(API, CALLS)["paths"]


def test_lists_of_several_services_join_into_one_document() -> None:
    assert document(API, [BUILD, *CALLS[1:]]) == document(API, CALLS)
    assert set(openapi_document("both", "1", [BUILD, LIST])["paths"]["/ships"]) == {"post", "get"}
    with pytest.raises(ValueError, match="POST /ships is declared twice"):
        document(API, [BUILD, BUILD])


def test_operations_have_names_that_differ() -> None:
    ids = [call.operation_id for call in CALLS]
    assert ids == ["postShips", "getShips", "getShipsIdLog", "deleteShipsId", "getPlans"]


def moor(**more: Any) -> dict[str, Any]:
    call: dict[str, Any] = {"method": "POST", "path": "/berths", "handler": answer, "tag": "ships", "summary": "Moor"}
    call |= {"body": Mooring, "responses": {200: Moored, 201: Manifest}}
    return document(API, [Operation(**call | more)])


def schemas(**more: Any) -> dict[str, Any]:
    found: dict[str, Any] = moor(**more)["components"]["schemas"]
    return found


def test_no_field_has_a_default_which_generators_take_for_always_there() -> None:
    assert '"default"' not in json.dumps(schemas())
    assert schemas()["Mooring"]["required"] == ["berth"]


def test_an_answer_requires_what_it_always_has() -> None:
    assert schemas()["Manifest"]["required"] == ["crates", "kind", "note"]
    assert schemas()["Manifest"]["properties"]["note"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}


def test_an_answer_that_leaves_out_what_is_null_never_has_null() -> None:
    moored = schemas()["Moored"]
    assert moored["required"] == ["berth"]
    assert moored["properties"]["pilot"] == {"type": "string"}
    assert moored["properties"]["tug"] == {"anyOf": [{"type": "string"}, {"type": "integer"}]}


def test_what_is_sent_may_be_null_where_the_service_takes_it() -> None:
    """Also in a type that is sent and answered alike."""
    assert schemas()["Berth"]["properties"]["depth"] == {"anyOf": [{"type": "number"}, {"type": "null"}]}
    assert schemas(body=None)["Berth"]["properties"]["depth"] == {"type": "number"}


def test_a_type_that_only_checks_more_than_another_is_described_as_that_one() -> None:
    found = schemas()
    assert "CheckedBerth" not in found
    reference = {"$ref": "#/components/schemas/Berth"}
    assert reference in found["Mooring"]["properties"]["berth"]["anyOf"]
    assert reference in found["Moored"]["properties"]["berth"]["anyOf"]


def test_two_types_of_one_name_are_refused() -> None:
    other = msgspec.defstruct("Manifest", [("weight", int)], module="elsewhere")
    with pytest.raises(ValueError, match=r"two types have one name: .*Manifest"):
        moor(responses={200: other, 201: Manifest})


def test_json_is_the_first_of_the_types_of_a_body_and_an_answer() -> None:
    operation = moor(body_types=("text/csv", "application/json"), response_types=("text/csv", "application/json"))
    posted = operation["paths"]["/berths"]["post"]
    for content in (posted["requestBody"]["content"], posted["responses"]["200"]["content"]):
        assert list(content) == ["application/json", "text/csv"]


@pytest.mark.parametrize("name", ["Accept", "content-type", "Authorization"])
def test_a_header_that_openapi_describes_elsewhere_is_no_parameter(name: str) -> None:
    with pytest.raises(ValueError, match=f"POST /berths: {name} is described elsewhere"):
        moor(request_headers={name: "what for"})


async def test_the_document_is_served(session: aiohttp.ClientSession) -> None:
    async with session.get("/openapi.json") as response:
        assert (response.status, response.content_type) == (200, "application/json")
        assert await response.json() == document(API, CALLS)


async def test_the_page_names_every_call_and_loads_nothing(session: aiohttp.ClientSession) -> None:
    async with session.get("/docs") as response:
        html = await response.text()
        policy = response.headers["Content-Security-Policy"]
        assert (response.status, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert policy.startswith("default-src 'none'")
    for call in (BUILD, LIST, SHOW, SINK):
        assert f'id="{call.operation_id}"' in html
    assert not re.search(r"<script|<link|<img|@import|url\(|https?://|\son\w+=|\sstyle=", html)
    assert "Build <code>one</code> &lt;ship&gt;" in html


async def test_the_page_shows_each_call_as_a_command(session: aiohttp.ClientSession) -> None:
    async with session.get("/docs") as response:
        commands = re.findall(r"<pre>(.*?)</pre>", unescape(await response.text()), re.DOTALL)
    assert commands[0].splitlines() == [
        "curl -X POST \\",
        '  "$TIDEGATE/ships" \\',
        '  -H "Authorization: Bearer $TOKEN" \\',
        "  -H 'Content-Type: application/json' \\",
        """  -d '{"shipName": "ada"}'""",
    ]
    assert 'curl \\\n  "$TIDEGATE/ships?builtAfter=$BUILTAFTER"' in commands
    assert 'curl -X DELETE \\\n  "$TIDEGATE/ships/$ID"' in commands


async def test_every_link_of_the_page_leads_somewhere(session: aiohttp.ClientSession) -> None:
    async with session.get("/docs") as response:
        html = await response.text()
    anchors = set(re.findall(r'id="([^"]+)"', html))
    links = set(re.findall(r'href="#([^"]+)"', html))
    assert links
    assert links <= anchors
