"""Only an active user token in the Authorization header may read."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from access.revocations import RevocationList
from access.tokens import KeySet
from broker.embedded.broker import EmbeddedBroker
from testing.issuer import Issuer, at_this_time
from tests.reader.harness import (
    DEVICE,
    ISSUING,
    SENSOR,
    FakeRevocations,
    Mongo,
    ReaderClient,
    Response,
    Store,
    make_reading,
    open_reader,
    series,
    user_token,
)

CALLS: dict[str, dict[str, str]] = {
    "/readings": series(),
    "/readings/buckets": series(),
    "/readings/latest": {},
    "/series": {},
    "/series/search": {},
    "/pipeline": {},
    "/live": {},
    f"/devices/{DEVICE}/gaps": {"sensorType": SENSOR},
}
EXPIRED: dict[str, Any] = {"iat": lambda now: now - 100, "exp": lambda now: now - 1}
INVALID, MISSING = 'Bearer error="invalid_token"', "Bearer"

# Code, challenge and token.
REFUSED: dict[str, tuple[str, str, Callable[[], str]]] = {
    "expired": ("expired", INVALID, lambda: user_token(**at_this_time(EXPIRED))),
    "of an unknown key": ("unauthorized", INVALID, lambda: Issuer("key-9").user()),
    "signed by another": ("unauthorized", INVALID, lambda: Issuer(ISSUING.kid).user()),
    "of another issuer": ("unauthorized", INVALID, lambda: user_token(iss="https://other.test")),
    "for another audience": ("unauthorized", INVALID, lambda: user_token(aud="other")),
    "without an owner": ("unauthorized", INVALID, lambda: ISSUING.user(owner=None)),
    "with an empty owner": ("unauthorized", INVALID, lambda: ISSUING.user(owner="")),
    "with an owner that is no text": ("unauthorized", INVALID, lambda: ISSUING.user(owner={"$gt": ""})),
    "no token": ("unauthorized", INVALID, lambda: "garbage"),
    "empty": ("unauthorized", INVALID, lambda: ""),
    "too long": ("unauthorized", INVALID, lambda: "x" * 8000 + "." + "x" * 100),
}
SCOPES: dict[str, Callable[[], str]] = {
    "a device": ISSUING.device,
    "a device that says more": lambda: ISSUING.device(scope="readings:write readings:reader"),
    "a user who may not": lambda: user_token(scope="readings:write devices:manage"),
    "no scope": lambda: user_token(scope=""),
    "another case": lambda: user_token(scope="Readings:Read"),
}


@pytest.fixture
async def filled_reader(reader_client: ReaderClient, store: Store) -> ReaderClient:
    await store.insert(make_reading("hidden"))
    return reader_client


def require_refusal(answer: Response, status: int, code: str) -> None:
    assert (answer.status, answer.kind) == (status, "application/problem+json")
    assert answer.json.get("code", "") == code
    assert b"hidden" not in answer.body


async def test_these_are_all_calls(reader_client: ReaderClient) -> None:
    # `POST /readings/stored` admits tokens of devices: tests/reader/http/test_stored.py.
    reads = [call for call in reader_client.calls if call.method == "GET"]
    assert {call.path.format(id=DEVICE) for call in reads} == set(CALLS)
    assert {call.path for call in reader_client.calls if call not in reads} == {"/readings/stored"}
    assert all(call.secured for call in reader_client.calls)


@pytest.mark.parametrize("what", REFUSED)
async def test_a_token_that_does_not_serve_opens_nothing(filled_reader: ReaderClient, what: str) -> None:
    code, challenge, token = REFUSED[what]
    for path, query in CALLS.items():
        answer = await filled_reader.fetch(path, query, token=token())
        require_refusal(answer, 401, code)
        head = await filled_reader.fetch(path, query, token=token(), method="HEAD")
        assert (head.status, head.body) == (401, b"")
        assert answer.headers["WWW-Authenticate"] == head.headers["WWW-Authenticate"] == challenge


@pytest.mark.parametrize("who", SCOPES)
async def test_a_token_that_may_not_read_is_refused_with_what_it_needs(filled_reader: ReaderClient, who: str) -> None:
    for path, query in CALLS.items():
        answer = await filled_reader.fetch(path, query, token=SCOPES[who]())
        require_refusal(answer, 403, "forbidden")
        assert answer.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="readings:read"'


HEADERS: dict[str, Callable[[], list[tuple[str, str]]]] = {
    "none": list,
    "another scheme": lambda: [("Authorization", f"Basic {user_token()}")],
    "no scheme": lambda: [("Authorization", user_token())],
    "two": lambda: [("Authorization", f"Bearer {user_token()}"), ("Authorization", f"Bearer {user_token()}")],
    "a cookie": lambda: [("Cookie", f"token={user_token()}; access_token={user_token()}")],
    "another header": lambda: [("X-Authorization", f"Bearer {user_token()}")],
}


@pytest.mark.parametrize("what", HEADERS)
async def test_without_one_bearer_token_in_its_header_nothing_is_returned(
    filled_reader: ReaderClient, what: str
) -> None:
    for path, query in CALLS.items():
        async with filled_reader.http.get(filled_reader.url + path, params=query, headers=HEADERS[what]()) as response:
            answer = Response(response, await response.read())
        require_refusal(answer, 401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == MISSING


@pytest.mark.parametrize("name", ["token", "access_token", "accessToken", "auth"])
async def test_a_token_in_a_url_is_refused_even_with_a_good_one_in_the_header(
    filled_reader: ReaderClient, name: str
) -> None:
    for path, query in CALLS.items():
        answer = await filled_reader.fetch(path, query | {name: user_token()})
        require_refusal(answer, 401, "unauthorized")
        async with filled_reader.http.get(filled_reader.url + path, params=query | {name: user_token()}) as response:
            assert response.status == 401


async def test_the_token_is_checked_before_anything_else(filled_reader: ReaderClient) -> None:
    for path in CALLS:
        invalid_fields: dict[str, Any] = {"limit": "x", "from": "x", "every": "x", "cursor": "!"}
        require_refusal(await filled_reader.fetch(path, invalid_fields, token="garbage"), 401, "unauthorized")
        require_refusal(await filled_reader.fetch(path, invalid_fields, token=ISSUING.device()), 403, "forbidden")


@pytest.mark.parametrize(
    ("kind", "name", "more"),
    [
        ("jti", "jti-1", {}),
        ("sid", "family-1", {}),
        ("user", "user-1", {}),
        ("user", "user-1", {"gen": 1}),
        ("kid", ISSUING.kid, {}),
    ],
)
async def test_a_revoked_token_opens_nothing(
    broker: EmbeddedBroker, mongodb_database: Mongo, kind: str, name: str, more: dict[str, Any]
) -> None:
    listing = FakeRevocations()
    listing.revoke(kind, name, **more)
    async with open_reader(broker, mongodb_database, revocations=listing.polling()) as reader_client:
        for path, query in CALLS.items():
            answer = await reader_client.fetch(path, query)
            require_refusal(answer, 401, "revoked")
            assert answer.headers["WWW-Authenticate"] == INVALID
        other = user_token("user-2", jti="jti-2", sid="family-2")
        assert (await reader_client.fetch("/series", token=other)).status == (401 if kind == "kid" else 200)
        if "gen" in more:
            assert (await reader_client.fetch("/series", token=user_token(gen=1))).status == 200


async def test_a_token_of_the_future_is_refused_for_now(filled_reader: ReaderClient) -> None:
    future = int(time.time()) + 3600
    for path, query in CALLS.items():
        answer = await filled_reader.fetch(path, query, token=user_token(iat=future, exp=future + 60))
        require_refusal(answer, 503, "unavailable")
        assert int(answer.headers["Retry-After"]) > 0


async def away(*_: Any) -> Any:
    raise OSError("away")


async def test_while_no_token_can_be_checked_every_request_is_refused_for_now(
    broker: EmbeddedBroker, mongodb_database: Mongo
) -> None:
    for parts in ({"keys": KeySet(away)}, {"revocations": RevocationList(away)}):
        given: dict[str, Any] = dict(parts)
        async with open_reader(broker, mongodb_database, **given) as reader_client:
            for path, query in CALLS.items():
                answer = await reader_client.fetch(path, query)
                require_refusal(answer, 503, "unavailable")
                assert int(answer.headers["Retry-After"]) > 0
            (name,) = parts
            with pytest.raises(Exception, match=r"fetched"):
                await reader_client.checks[name]()
