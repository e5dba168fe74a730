"""Which tokens are accepted, and with which code all others are refused."""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, tzinfo
from typing import Any

import aiohttp
import jwt
import msgspec
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from access import tokens
from access.claims import Claims, Verified
from access.tokens import KeySet, TokenError, TokenVerifier, fetch_jwks_over_http, public_keys
from readings.place import Place
from runtime.http.listen import listen
from testing.issuer import ISSUER, Issuer, at_this_time, b64, b64_json, device_claims, user_claims

ISSUING = Issuer()


class Keys:
    """Serves a JWKS like the auth service, and counts the requests."""

    def __init__(self, *issuers: Issuer) -> None:
        self.issuers = list(issuers)
        self.asked = 0
        self.failure: Exception | None = None

    async def fetch(self) -> dict[str, Any]:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return {"keys": [issuer.jwk() for issuer in self.issuers]}


async def verify(token: object, *, issuer: str = ISSUER) -> Verified:
    return await TokenVerifier(KeySet(Keys(ISSUING).fetch), issuer).verify(token)


async def refusal(token: object, *, issuer: str = ISSUER) -> str:
    return await refusal_of(TokenVerifier(KeySet(Keys(ISSUING).fetch), issuer), token)


async def refusal_of(verifier: TokenVerifier, token: object) -> str:
    """Return the code with which a verifier refuses a token."""
    with pytest.raises(TokenError) as refused:
        await verifier.verify(token)
    assert str(refused.value)
    assert not isinstance(token, str) or len(token) < 20 or token not in str(refused.value)
    return refused.value.code


async def test_a_users_token_is_taken_with_its_claims() -> None:
    claims = await verify(ISSUING.user(gen=3))
    assert (claims.sub, claims.owner, claims.sid, claims.device, claims.gen) == (
        "user-1",
        "user-1",
        "family-1",
        None,
        3,
    )
    assert claims.allows("readings:write")
    assert claims.allows("devices:manage")


async def test_a_devices_token_is_taken_with_what_it_was_registered_with() -> None:
    claims = await verify(ISSUING.device(location={"lat": 1.5, "lon": 2}))
    assert (claims.device, claims.sid, claims.sensor_type) == ("device-1", None, "temperature")
    assert claims.location == Place(1.5, 2.0)
    assert claims.allows("readings:write")
    assert not claims.allows("readings:read")


@pytest.mark.parametrize("scope", ["readings", "write", "", "readings:write readings:read", "eadings:write"])
async def test_a_part_of_a_scope_is_not_the_scope(scope: str) -> None:
    assert not (await verify(ISSUING.user())).allows(scope)


# What is a function is of the time when the test runs: `at_this_time`.
BAD_CLAIMS: list[dict[str, Any]] = [
    *({name: None} for name in ("iss", "aud", "sub", "iat", "exp", "jti", "owner", "scope", "gen")),
    *({name: ""} for name in ("iss", "sub", "jti", "owner")),
    *({name: 7} for name in ("iss", "aud", "sub", "jti", "owner", "scope", "sid", "device", "sensorType", "location")),
    {"exp": lambda now: str(now + 3600)},
    {"exp": 10**30},
    {"exp": 1e300},
    {"exp": lambda now: now + 3600.5},
    {"exp": []},
    {"iat": str},
    {"iat": 10**30},
    {"iat": lambda now: now + 7200},
    {"exp": lambda now: now + 32 * 86400},
    {"iat": lambda now: now - 40 * 86400},
    {"nbf": lambda now: now + 3600},
    {"aud": "another"},
    {"aud": ["another"]},
    {"aud": ["tidegate", "another"]},
    {"aud": "tidegate.example"},
    {"iss": "https://evil.test"},
    {"gen": "0"},
    {"client_id": 7},
    {"gen": 1.5},
    {"gen": True},
    {"scope": ["readings:write"]},
    {"sid": None},
    {"device": "device-1"},
]


@pytest.mark.parametrize("changes", BAD_CLAIMS, ids=" and ".join)
async def test_a_token_with_a_wrong_claim_is_unauthorized(changes: dict[str, Any]) -> None:
    assert await refusal(ISSUING.user(**at_this_time(changes))) == "unauthorized"


async def test_an_api_key_is_taken_for_a_year_with_the_devices_it_is_limited_to() -> None:
    claims = await verify(ISSUING.api_key(devices=["device-1", "device-2"]))
    assert (claims.sid, claims.device, claims.key, claims.jti) == (None, None, "api-key-1", "api-key-1")
    assert [claims.covers(device) for device in ("device-1", "device-2", "device-3")] == [True, True, False]
    assert (claims.holder, (await verify(ISSUING.api_key())).covers("device-3")) == ("api-key-1", True)


async def test_a_devices_token_names_the_api_key_that_issued_it() -> None:
    claims = await verify(ISSUING.device(issuingKey="api-key-1"))
    assert (claims.issuing_key, claims.key, claims.holder) == ("api-key-1", None, "device-1")
    assert [claims.covers(device) for device in ("device-1", "device-2")] == [True, False]


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": lambda now: now + 367 * 86400},
        {"sid": "family-1"},
        {"device": "device-1"},
        {"jti": "another"},
        {"issuingKey": "another"},
        {"key": None},
        {"key": None, "sid": "family-1"},
        {"key": None, "sid": "family-1", "devices": ["device-1"], "exp": lambda now: now + 3600},
        {"key": None, "sid": "family-1", "issuingKey": "api-key-1", "exp": lambda now: now + 3600},
        {"key": None, "device": "device-1", "devices": ["device-1"], "exp": lambda now: now + 3600},
        *({name: value} for name in ("key", "devices") for value in (7, {"a": 1}, [7])),
    ],
    ids=" and ".join,
)
async def test_an_api_key_with_a_wrong_claim_is_unauthorized(changes: dict[str, Any]) -> None:
    assert await refusal(ISSUING.api_key(**at_this_time(changes))) == "unauthorized"


async def test_a_token_of_the_future_is_unavailable_for_one_of_two_clocks_is_wrong_and_it_may_be_good() -> None:
    now = int(time.time())
    assert await refusal(ISSUING.user(iat=now + 3600, exp=now + 7200)) == "unavailable"
    assert await refusal(ISSUING.user(iat=now + 3600, exp=now + 3600)) == "unauthorized", "it was never good"
    assert (await verify(ISSUING.user(iat=now + tokens.CLOCK_AHEAD_S - 5, exp=now + 7200))).iat > now


async def test_a_clock_that_is_put_right_takes_what_it_refused_for_now(monkeypatch: pytest.MonkeyPatch) -> None:
    token = ISSUING.device()
    real = time.time
    with monkeypatch.context() as behind:
        behind.setattr(time, "time", lambda: real() - 3600)
        assert await refusal(token) == "unavailable"
    assert (await verify(token)).device == "device-1"


async def test_the_key_that_signed_is_named_by_the_header_and_by_nothing_else() -> None:
    verified = await verify(ISSUING.user(kid="another"))
    assert verified.kid == ISSUING.kid
    assert "kid" not in msgspec.to_builtins(verified.payload())
    assert verified.payload().jti == "jti-1"


@pytest.mark.parametrize("ago", [0, 1, 3600])
async def test_a_token_past_its_expiry_is_expired_without_leeway(ago: int) -> None:
    now = int(time.time())
    assert await refusal(ISSUING.user(iat=now - 7200, exp=now - ago)) == "expired"


@pytest.mark.parametrize(
    "change",
    [
        {"alg": "none"},
        {"alg": "None"},
        {"alg": "HS256"},
        {"alg": "ES256"},
        {"alg": None},
        {"alg": ["EdDSA"]},
        {"typ": "JWT"},
        {"typ": "at+JWT "},
        {"typ": None},
        {"kid": None},
        {"kid": 1},
        {"kid": ""},
        {"kid": "key-2"},
        {"kid": "../key-1"},
        {"kid": ["key-1"]},
        {"crit": ["exp"]},
        {"crit": ["b64"], "b64": False},
        {"crit": []},
    ],
    ids=str,
)
async def test_a_well_signed_token_of_another_kind_is_unauthorized(change: dict[str, Any]) -> None:
    assert await refusal(ISSUING.sign(user_claims(), ISSUING.header(**change))) == "unauthorized"


async def test_a_token_without_type_is_unauthorized() -> None:
    header = ISSUING.header()
    del header["typ"]
    assert await refusal(ISSUING.sign(user_claims(), header)) == "unauthorized"


async def test_alg_none_without_a_signature_is_unauthorized() -> None:
    token = f"{b64_json(ISSUING.header(alg='none'))}.{b64_json(user_claims())}."
    assert await refusal(token) == "unauthorized"


@pytest.mark.parametrize("alg", ["HS256", "EdDSA"])
async def test_an_hmac_with_the_public_key_as_its_secret_is_unauthorized(alg: str) -> None:
    signed = f"{b64_json(ISSUING.header(alg=alg))}.{b64_json(user_claims())}"
    signature = hmac.digest(ISSUING.public_bytes, signed.encode(), hashlib.sha256)
    assert await refusal(f"{signed}.{b64(signature)}") == "unauthorized"


async def test_a_token_signed_with_another_key_of_the_same_kid_is_unauthorized() -> None:
    assert await refusal(Issuer(ISSUING.kid).user()) == "unauthorized"


async def test_a_key_that_the_token_brings_along_is_not_used() -> None:
    stranger = Issuer("stranger")
    header = stranger.header(jwk=stranger.jwk(), jku="https://evil.test/jwks.json", kid=ISSUING.kid)
    assert await refusal(stranger.sign(user_claims(), header)) == "unauthorized"


async def test_changed_claims_or_a_changed_signature_are_unauthorized() -> None:
    header, _, signature = ISSUING.user().split(".")
    assert await refusal(f"{header}.{b64_json(user_claims(owner='victim'))}.{signature}") == "unauthorized"
    header, payload, signature = ISSUING.user().split(".")
    assert await refusal(f"{header}.{payload}.{signature[:-6]}AAAAAA") == "unauthorized"
    assert await refusal(f"{header}.{payload}.") == "unauthorized"


@pytest.mark.parametrize(
    "token",
    [
        None,
        7,
        b"bytes",
        {},
        [],
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "ä.b.c",
        "\ud800",
        "\0",
        "x" * 1024 * 1024,
        "a." * 500_000,
        b64(b"[" * 5000) + ".e30.AA",
        b64(b"[]") + ".e30.AA",
        b64(b"null") + ".e30.AA",
    ],
    ids=lambda token: repr(token)[:30],
)
async def test_what_is_no_token_is_unauthorized(token: object) -> None:
    assert await refusal(token) == "unauthorized"


async def test_a_well_signed_token_of_a_megabyte_is_unauthorized_and_its_key_is_not_even_looked_up() -> None:
    keys = Keys(ISSUING)
    with pytest.raises(TokenError) as refused:
        await TokenVerifier(KeySet(keys.fetch)).verify(ISSUING.user(jti="j" * 1024 * 1024))
    assert (refused.value.code, keys.asked) == ("unauthorized", 0)


async def test_a_header_that_was_seen_before_makes_no_token_valid() -> None:
    verifier = TokenVerifier(KeySet(Keys(ISSUING).fetch))
    await verifier.ready()
    known, payload, signature = ISSUING.user().split(".")
    assert (await verifier.verify(f"{known}.{payload}.{signature}")).owner
    other = b64_json(user_claims(owner="victim"))
    for rest in ("", ".", f".{payload}", f".{payload}.", f".{other}.{signature}", f".{payload}.{signature}.x"):
        with pytest.raises(TokenError) as refused:
            await verifier.verify(known + rest)
        assert refused.value.code == "unauthorized"
    with pytest.raises(TokenError) as refused:
        await verifier.verify(f".{payload}.{signature}")
    assert refused.value.code == "unauthorized"


@pytest.mark.parametrize("claims", [[], "text", 7, None])
async def test_claims_that_are_no_object_are_unauthorized(claims: Any) -> None:
    assert await refusal(ISSUING.sign(claims)) == "unauthorized"


async def test_the_longest_device_token_is_taken() -> None:
    claims = device_claims(
        device="d" * 64, sub="d" * 64, sensorType="s" * 64, location="\U0001f600" * 256, owner="o" * 64
    )
    token = ISSUING.sign(claims)
    assert (await verify(token)).location == "\U0001f600" * 256


async def test_without_an_issuer_in_the_settings_any_name_is_taken_but_some_name_is_needed() -> None:
    assert (await verify(ISSUING.user(iss="whoever"), issuer="")).iss == "whoever"
    assert await refusal(ISSUING.user(iss=None), issuer="") == "unauthorized"
    assert await refusal(ISSUING.user(iss=""), issuer="") == "unauthorized"


# Keys


async def test_without_any_key_every_token_is_unavailable() -> None:
    keys = Keys()
    keys.failure = OSError("auth is down")
    verifier = TokenVerifier(KeySet(keys.fetch))
    for _ in range(3):
        with pytest.raises(TokenError) as refused:
            await verifier.verify(ISSUING.user())
        assert refused.value.code == "unavailable"
    assert keys.asked == 1, "a dead issuer is asked at most every 2 s"


async def test_rotation_finds_the_new_key_and_drops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "REFRESH_AT_MOST_EVERY_S", 0.0)
    rotated = Issuer("key-2")
    keys = Keys(ISSUING)
    key_set = KeySet(keys.fetch)
    verifier = TokenVerifier(key_set)
    await verifier.verify(ISSUING.user())
    keys.issuers.append(rotated)
    await verifier.verify(rotated.user())
    await verifier.verify(ISSUING.user())
    assert keys.asked == 2
    keys.issuers.remove(ISSUING)
    assert await key_set.refresh()
    with pytest.raises(TokenError) as refused:
        await verifier.verify(ISSUING.user())
    assert refused.value.code == "unauthorized"


async def test_a_flood_of_unknown_kids_does_not_become_a_flood_of_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "REFRESH_AT_MOST_EVERY_S", 0.1)
    keys = Keys(ISSUING)
    verifier = TokenVerifier(KeySet(keys.fetch))
    unknown = [Issuer(f"unknown-{number}").user() for number in range(50)]
    answers = await asyncio.gather(*map(verifier.verify, unknown), return_exceptions=True)
    assert {getattr(answer, "code", None) for answer in answers} == {"unauthorized"}
    assert keys.asked == 2, "one for the first, one more for all who came after it was asked"


async def test_made_up_kids_do_not_hide_a_new_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "REFRESH_AT_MOST_EVERY_S", 0.1)
    rotated = Issuer("key-2")
    keys = Keys(ISSUING)
    verifier = TokenVerifier(KeySet(keys.fetch))
    for number in range(3):
        with pytest.raises(TokenError):
            await verifier.verify(Issuer(f"unknown-{number}").user())
    keys.issuers.append(rotated)  # just after a question
    asked = keys.asked
    answers = await asyncio.gather(
        *(verifier.verify(rotated.user()) for _ in range(20)),
        *(verifier.verify(Issuer("unknown").user()) for _ in range(20)),
        return_exceptions=True,
    )
    assert all(isinstance(answer, Claims) for answer in answers[:20])
    assert {getattr(answer, "code", None) for answer in answers[20:]} == {"unauthorized"}
    assert keys.asked == asked + 1


async def test_an_unknown_key_is_unavailable_while_the_issuer_is_away_for_it_may_be_new() -> None:
    keys = Keys(ISSUING)
    key_set = KeySet(keys.fetch)
    assert await key_set.refresh()
    keys.failure = OSError("auth is down")
    assert not await key_set.refresh()
    verifier = TokenVerifier(key_set)
    with pytest.raises(TokenError) as refused:
        await asyncio.wait_for(verifier.verify(Issuer("key-2").user()), 1)
    assert refused.value.code == "unavailable"
    await verifier.verify(ISSUING.user())


@pytest.mark.parametrize("failure", [OSError("down"), TimeoutError(), ValueError("no JSON"), aiohttp.ClientError("x")])
async def test_keys_stay_while_the_issuer_is_away(failure: Exception) -> None:
    keys = Keys(ISSUING)
    key_set = KeySet(keys.fetch)
    assert await key_set.refresh()
    keys.failure = failure
    assert not await key_set.refresh()
    await key_set.check()
    assert (await TokenVerifier(key_set).verify(ISSUING.user())).sub == "user-1"


@pytest.mark.parametrize("began_well", [True, False])
async def test_an_outage_of_the_issuer_is_told_once_and_its_end_once(began_well: bool) -> None:
    keys, away = Keys(ISSUING), ConnectionRefusedError("nobody listens")
    keys.failure = None if began_well else away
    key_set = KeySet(keys.fetch)
    with capture_logs() as logs:
        assert await key_set.refresh() is began_well
        for keys.failure in (away, away, None, None, away):
            await key_set.refresh()
    assert [(line["log_level"], line["event"]) for line in logs] == [
        ("warning", "The issuer's keys could not be fetched."),
        ("info", "The issuer's keys are fetched again."),
        ("warning", "The issuer's keys could not be fetched."),
    ]
    assert "nobody listens" in logs[0]["error"]


async def test_the_check_fails_until_there_are_keys() -> None:
    keys = Keys(ISSUING)
    key_set = KeySet(keys.fetch)
    with pytest.raises(TokenError):
        await key_set.check()
    async with key_set.kept_fresh():
        await key_set.check()


async def test_keys_that_were_missing_at_the_start_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "RETRY_EVERY_S", 0.01)
    keys = Keys(ISSUING)
    keys.failure = OSError("not yet")
    async with KeySet(keys.fetch).kept_fresh() as key_set, asyncio.timeout(5):
        while keys.asked < 2:
            await asyncio.sleep(0.005)
        keys.failure = None
        while not key_set.loaded:
            await asyncio.sleep(0.005)


def test_only_ed25519_keys_with_a_kid_are_used() -> None:
    jwk = ISSUING.jwk()
    others = [jwk | {"crv": "X25519"}, jwk | {"kty": "RSA"}, jwk | {"kid": ""}, {"kty": "oct", "k": "AA"}, "text", None]
    assert list(public_keys({"keys": [*others, jwk]})) == [ISSUING.kid]


@pytest.mark.parametrize("jwks", [{}, {"keys": {}}, {"keys": None}, {"keys": "text"}])
def test_what_is_no_jwks_is_refused(jwks: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a JWKS"):
        public_keys(jwks)


@asynccontextmanager
async def answering(status: int, body: str) -> AsyncIterator[str]:
    async def jwks(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    app = web.Application()
    app.add_routes([web.get("/.well-known/jwks.json", jwks)])
    async with listen(app, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (200, json.dumps(ISSUING.jwks()), True),
        (500, json.dumps(ISSUING.jwks()), False),
        (200, "<html>", False),
        (200, "[]", False),
        (200, '{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"!"}]}', False),
        (200, '{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a"}]}', False),
    ],
)
async def test_keys_are_fetched_over_http_and_a_bad_answer_is_no_answer(status: int, body: str, found: bool) -> None:
    async with answering(status, body) as url, aiohttp.ClientSession() as session:
        key_set = KeySet(fetch_jwks_over_http(session, url))
        assert await key_set.refresh() is found
        assert key_set.loaded is found


async def test_whether_there_are_keys_is_asked_of_the_issuer_once_and_not_by_everybody_while_it_is_away() -> None:
    asked = 0
    issuer = Issuer()

    async def fetch() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise OSError("away")
        return issuer.jwks()

    keys = KeySet(fetch)
    verifier = TokenVerifier(keys)
    assert await asyncio.gather(*(verifier.ready() for _ in range(100))) == [False] * 100
    assert asked == 1
    await keys.refresh()
    assert await verifier.ready()
    assert asked == 2


async def test_a_token_is_verified_once_for_each_refresh_of_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    key_set = KeySet(Keys(ISSUING).fetch)
    verifier, token = TokenVerifier(key_set), ISSUING.user()
    verified: list[str] = []
    decode = jwt.decode

    def noted(given: str, *arguments: Any, **options: Any) -> Any:
        verified.append(given)
        return decode(given, *arguments, **options)

    monkeypatch.setattr(jwt, "decode", noted)
    assert await verifier.verify(token) == await verifier.verify(token)
    assert verified == [token]
    await key_set.refresh()
    await verifier.verify(token)
    await verifier.verify(token)
    assert verified == [token, token]


async def test_a_token_that_was_taken_before_expires_on_time() -> None:
    verifier, now = TokenVerifier(KeySet(Keys(ISSUING).fetch)), int(time.time())
    token = ISSUING.user(iat=now - 60, exp=now + 2)
    assert (await verifier.verify(token)).exp == now + 2
    await asyncio.sleep(now + 2 - time.time())
    assert await refusal_of(verifier, token) == "expired"


async def test_a_token_that_was_taken_before_is_unavailable_when_the_clock_falls_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verifier, token = TokenVerifier(KeySet(Keys(ISSUING).fetch)), ISSUING.user()
    await verifier.verify(token)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 3600)
    assert await refusal_of(verifier, token) == "unavailable"


async def test_a_token_that_is_not_valid_yet_is_refused_again_when_the_clock_falls_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = int(time.time())
    verifier, token = TokenVerifier(KeySet(Keys(ISSUING).fetch)), ISSUING.user(iat=now - 30, nbf=now - 30)
    await verifier.verify(token)

    class Behind(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Behind":
            return cls.fromtimestamp(now - 45, tz)

    monkeypatch.setattr("jwt.api_jwt.datetime", Behind)
    monkeypatch.setattr(time, "time", lambda: now - 45)
    assert await refusal_of(verifier, token) == "unauthorized"


async def test_a_token_that_was_taken_before_ends_with_its_key_even_if_another_has_its_kid() -> None:
    keys = Keys(ISSUING)
    key_set = KeySet(keys.fetch)
    verifier, token = TokenVerifier(key_set), ISSUING.user()
    await verifier.verify(token)
    keys.issuers = [Issuer(ISSUING.kid)]
    assert await key_set.refresh()
    assert await refusal_of(verifier, token) == "unauthorized"


async def test_tokens_are_remembered_up_to_a_number_of_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_REMEMBERED_CHARS", 2000)
    verifier = TokenVerifier(KeySet(Keys(ISSUING).fetch))
    for number in range(20):
        await verifier.verify(ISSUING.user(jti=f"jti-{number}"))
    assert 1 <= len(verifier._verified) <= 4
