from typing import Any

import pytest

from tests.auth.service import Answer, Client

SIGN_UP = {"name": "Ada", "email": "ada@example.org", "password": "correct horse"}


def assert_problem(answer: Answer, status: int) -> None:
    """Every error has the form of RFC 9457."""
    assert answer.status == status, answer.raw
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert {"type", "title", "status", "detail"} <= set(answer.json)
    assert answer.json["status"] == status


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/user/signup", "POST"),
        ("DELETE", "/user/login", "POST"),
        ("POST", "/user/token", "GET,HEAD"),
        ("PUT", "/devices", "GET,HEAD,POST"),
        ("POST", "/devices/0190b5a0-0000-7000-8000-000000000000", "DELETE,GET,HEAD,PATCH"),
        ("GET", "/devices/0190b5a0-0000-7000-8000-000000000000/token", "POST"),
        ("POST", "/.well-known/jwks.json", "GET,HEAD"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(
    sqlite_client: Client, method: str, path: str, allowed: str
) -> None:
    answer = await sqlite_client.call(method, path)
    assert_problem(answer, 405)
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize("path", ["/", "/user", "/user/", "/devices/", "/users/signup", "/devices/a/b/c", "/%00"])
async def test_an_unknown_path_is_404(sqlite_client: Client, path: str) -> None:
    assert_problem(await sqlite_client.get(path), 404)


@pytest.mark.parametrize(
    "call", [("POST", "/devices"), ("GET", "/devices"), ("GET", "/devices/x"), ("GET", "/user/token")]
)
async def test_a_missing_token_is_a_problem_too(sqlite_client: Client, call: tuple[str, str]) -> None:
    assert_problem(await sqlite_client.call(*call), 401)


@pytest.mark.parametrize("value", ["' OR 1=1 --", '"; DROP TABLE users; --', "%", "_", "\\", "{{7*7}}", "\u202e"])
async def test_what_means_something_elsewhere_is_only_text_here(client: Client, value: str) -> None:
    answer = await client.post("/user/signup", SIGN_UP | {"name": value})
    assert answer.status == 201
    assert answer.json["name"] == value
    body: dict[str, Any] = {"sensorType": "t", "location": value}
    token = (await client.log_in(password=SIGN_UP["password"])).json["accessToken"]
    assert (await client.post("/devices", body, token=token)).json["location"] == value
