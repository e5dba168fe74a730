"""Who may read: a user's token in force, in its header, and nothing else."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from access.revocations import RevocationList
from access.tokens import KeySet
from broker.embedded.broker import EmbeddedBroker
from testing.issuer import Issuer, at_this_time
from tests.reader.running import ISSUING, Answered, Listing, Mongo, Running, Store, reader, sent, series, token_of

CALLS: dict[str, dict[str, str]] = {
    "/readings": series(),
    "/readings/buckets": series(),
    "/readings/latest": {},
    "/series": {},
    "/series/search": {},
    "/pipeline": {},
    "/live": {},
}
EXPIRED: dict[str, Any] = {"iat": lambda now: now - 100, "exp": lambda now: now - 1}
INVALID, MISSING = 'Bearer error="invalid_token"', "Bearer"

# Code, challenge, and the token.
REFUSED: dict[str, tuple[str, str, Callable[[], str]]] = {
    "expired": ("expired", INVALID, lambda: token_of(**at_this_time(EXPIRED))),
    "of an unknown key": ("unauthorized", INVALID, lambda: Issuer("key-9").user()),
    "signed by another": ("unauthorized", INVALID, lambda: Issuer(ISSUING.kid).user()),
    "of another issuer": ("unauthorized", INVALID, lambda: token_of(iss="https://other.test")),
    "for another audience": ("unauthorized", INVALID, lambda: token_of(aud="other")),
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
    "a user who may not": lambda: token_of(scope="readings:write devices:manage"),
    "no scope": lambda: token_of(scope=""),
    "another case": lambda: token_of(scope="Readings:Read"),
}


@pytest.fixture
async def asked(running: Running, store: Store) -> Running:
    await store.holds(sent("hidden"))
    return running


def require_refusal(answer: Answered, status: int, code: str) -> None:
    assert (answer.status, answer.kind) == (status, "application/problem+json")
    assert answer.json.get("code", "") == code
    assert b"hidden" not in answer.body


async def test_these_are_all_calls(running: Running) -> None:
    assert {call.path for call in running.calls} == set(CALLS)
    assert all(call.secured for call in running.calls)


@pytest.mark.parametrize("what", REFUSED)
async def test_a_token_that_does_not_serve_opens_nothing(asked: Running, what: str) -> None:
    code, challenge, token = REFUSED[what]
    for path, query in CALLS.items():
        answer = await asked.ask(path, query, token=token())
        require_refusal(answer, 401, code)
        head = await asked.ask(path, query, token=token(), method="HEAD")
        assert (head.status, head.body) == (401, b"")
        assert answer.headers["WWW-Authenticate"] == head.headers["WWW-Authenticate"] == challenge


@pytest.mark.parametrize("who", SCOPES)
async def test_who_may_not_read_is_told_what_it_takes(asked: Running, who: str) -> None:
    for path, query in CALLS.items():
        answer = await asked.ask(path, query, token=SCOPES[who]())
        require_refusal(answer, 403, "forbidden")
        assert answer.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="readings:read"'


HEADERS: dict[str, Callable[[], list[tuple[str, str]]]] = {
    "none": list,
    "another scheme": lambda: [("Authorization", f"Basic {token_of()}")],
    "no scheme": lambda: [("Authorization", token_of())],
    "two": lambda: [("Authorization", f"Bearer {token_of()}"), ("Authorization", f"Bearer {token_of()}")],
    "a cookie": lambda: [("Cookie", f"token={token_of()}; access_token={token_of()}")],
    "another header": lambda: [("X-Authorization", f"Bearer {token_of()}")],
}


@pytest.mark.parametrize("what", HEADERS)
async def test_without_one_bearer_token_in_its_header_nothing_is_told(asked: Running, what: str) -> None:
    for path, query in CALLS.items():
        async with asked.http.get(asked.url + path, params=query, headers=HEADERS[what]()) as response:
            answer = Answered(response, await response.read())
        require_refusal(answer, 401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == MISSING


@pytest.mark.parametrize("name", ["token", "access_token", "accessToken", "auth"])
async def test_a_token_in_an_address_is_refused_even_beside_a_good_one(asked: Running, name: str) -> None:
    for path, query in CALLS.items():
        answer = await asked.ask(path, query | {name: token_of()})
        require_refusal(answer, 401, "unauthorized")
        async with asked.http.get(asked.url + path, params=query | {name: token_of()}) as response:
            assert response.status == 401


async def test_whether_a_token_serves_is_told_before_anything_else(asked: Running) -> None:
    for path in CALLS:
        wrong: dict[str, Any] = {"limit": "x", "from": "x", "every": "x", "cursor": "!"}
        require_refusal(await asked.ask(path, wrong, token="garbage"), 401, "unauthorized")
        require_refusal(await asked.ask(path, wrong, token=ISSUING.device()), 403, "forbidden")


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
    listing = Listing()
    listing.revoke(kind, name, **more)
    async with reader(broker, mongodb_database, revocations=listing.polled()) as running:
        for path, query in CALLS.items():
            answer = await running.ask(path, query)
            require_refusal(answer, 401, "revoked")
            assert answer.headers["WWW-Authenticate"] == INVALID
        other = token_of("user-2", jti="jti-2", sid="family-2")
        assert (await running.ask("/series", token=other)).status == (401 if kind == "kid" else 200)
        if "gen" in more:
            assert (await running.ask("/series", token=token_of(gen=1))).status == 200


async def test_a_token_of_the_future_is_asked_to_come_again(asked: Running) -> None:
    future = int(time.time()) + 3600
    for path, query in CALLS.items():
        answer = await asked.ask(path, query, token=token_of(iat=future, exp=future + 60))
        require_refusal(answer, 503, "unavailable")
        assert int(answer.headers["Retry-After"]) > 0


async def away(*_: Any) -> Any:
    raise OSError("away")


async def test_while_nobody_can_be_judged_everybody_is_asked_to_come_again(
    broker: EmbeddedBroker, mongodb_database: Mongo
) -> None:
    for parts in ({"keys": KeySet(away)}, {"revocations": RevocationList(away)}):
        given: dict[str, Any] = dict(parts)
        async with reader(broker, mongodb_database, **given) as running:
            for path, query in CALLS.items():
                answer = await running.ask(path, query)
                require_refusal(answer, 503, "unavailable")
                assert int(answer.headers["Retry-After"]) > 0
            (name,) = parts
            with pytest.raises(Exception, match=r"fetched"):
                await running.checks[name]()
