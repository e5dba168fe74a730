"""All known kinds of bad input, one line each, sent to a real socket, with the expected refusal."""

import asyncio
import gzip
import json
import re
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from auth.migrate import migrate
from testing.issuer import Issuer, at_this_time, b64, b64_json
from tests.auth.service import PASSWORD, Answer, Client, make_settings, running

ADA = {"name": "Ada", "email": "ada@example.org", "password": PASSWORD}
PACKED = gzip.compress(json.dumps(ADA).encode(), mtime=0)
JSON = {"Content-Type": "application/json"}
GZIP = JSON | {"Content-Encoding": "gzip"}


def assert_problem(answer: Answer, status: int) -> None:
    assert answer.status == status, answer.raw
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["status"] == status
    assert {"type", "title", "detail"} <= set(answer.json)
    assert status != 401 or "WWW-Authenticate" in answer.headers


BODIES = {
    "empty": (b"", JSON, 400),
    "only space": (b" \n", JSON, 400),
    "broken": (b'{"name": "Ada"', JSON, 400),
    "no JSON": (b"name=Ada", JSON, 400),
    "two values": (b"{}{}", JSON, 400),
    "a trailing comma": (b'{"name": "Ada",}', JSON, 400),
    "single quotes": (b"{'name': 'Ada'}", JSON, 400),
    "a byte order mark": (b"\xef\xbb\xbf{}", JSON, 400),
    "deeply nested lists": (b"[" * 30_000 + b"]" * 30_000, JSON, 400),
    "deeply nested objects": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, JSON, 400),
    "a number of 5,000 digits": (b'{"name": ' + b"1" * 5000 + b"}", JSON, 400),
    "a number beyond all floats": (b'{"name": 1e999}', JSON, 400),
    "an exponent of 5,000 digits": (b'{"name": 1e' + b"1" * 5000 + b"}", JSON, 400),
    "invalid UTF-8 in a value": (b'{"name": "\xff"}', JSON, 400),
    "invalid UTF-8 in a key": (b'{"\xc3\x28": 1}', JSON, 400),
    "overlong UTF-8": (b'{"name": "\xc0\x80"}', JSON, 400),
    "half a surrogate pair": (b'{"name": "\\ud800"}', JSON, 400),
    "UTF-16": (json.dumps(ADA).encode("utf-16"), JSON, 400),
    "NaN": (b'{"name": NaN}', JSON, 400),
    "Infinity": (b'{"name": -Infinity}', JSON, 400),
    "a duplicate key": (b'{"name": "Ada", "name": "Eve", "email": "a@b.de", "password": "12345678x"}', JSON, 400),
    "a duplicate key, written otherwise": (b'{"name": "Ada", "n\\u0061me": "Eve"}', JSON, 400),
    "a duplicate key deep inside": (b'{"name": [{"a": {"b": 1, "b": 1}}]}', JSON, 400),
    "text/plain": (json.dumps(ADA).encode(), {"Content-Type": "text/plain"}, 415),
    "no type": (json.dumps(ADA).encode(), {"Content-Type": ""}, 415),
    "a form": (b"name=Ada", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
    "an unknown charset": (json.dumps(ADA).encode(), {"Content-Type": "application/json; charset=klingon"}, 415),
    "another charset": (json.dumps(ADA).encode(), {"Content-Type": "application/json; charset=utf-16"}, 415),
    "an unknown packing": (PACKED, JSON | {"Content-Encoding": "br"}, 415),
    "no gzip": (b"corrupt", GZIP, 400),
    "corrupt gzip": (PACKED[:15] + b"corrupt" + PACKED[22:], GZIP, 400),
    "cut gzip": (PACKED[:-4], GZIP, 400),
    "gzip of another checksum": (PACKED[:-8] + bytes(8), GZIP, 400),
    "gzip and more": (PACKED + b"more", GZIP, 400),
    "corrupt deflate": (zlib.compress(b"{}")[:-1], JSON | {"Content-Encoding": "deflate"}, 400),
    "a gzip bomb": (gzip.compress(b" " * 50_000_000), GZIP, 413),
    "a gzip bomb in JSON": (gzip.compress(b'{"name": "' + b"x" * 10_000_000 + b'"}'), GZIP, 413),
    "a large body": (b'{"name": "' + b"x" * 70_000 + b'"}', JSON, 413),
    "a larger body": (b" " * 1_000_000, JSON, 413),
    "an array": (json.dumps([ADA]).encode(), JSON, 422),
    "text": (b'"Ada"', JSON, 422),
    "a number": (b"7", JSON, 422),
    "true": (b"true", JSON, 422),
    "null": (b"null", JSON, 422),
    "an empty object": (b"{}", JSON, 422),
}


@pytest.mark.parametrize(("raw", "headers", "status"), BODIES.values(), ids=BODIES)
async def test_a_bad_body(sqlite_client: Client, raw: bytes, headers: dict[str, str], status: int) -> None:
    for path in ("/user/signup", "/user/login", "/user/refresh"):
        answer = await sqlite_client.post(path, data=raw, headers=headers)
        assert_problem(answer, status)
        assert (status in (400, 422)) == ("errors" in answer.json)


async def test_a_large_body_that_does_not_tell_its_length(sqlite_client: Client) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 10_000

    assert_problem(await sqlite_client.post("/user/signup", data=parts(), headers=JSON), 413)


FIELDS: dict[str, tuple[str, Any]] = {
    "a role": ("role", "admin"),
    "an id": ("id", "01900000-0000-7000-8000-000000000000"),
    "a name that is an object": ("name", {"$ne": None}),
    "a name that is a list": ("name", ["Ada"]),
    "a name that is a number": ("name", 7),
    "a name that is true": ("name", True),
    "a name that is null": ("name", None),
    "an empty name": ("name", ""),
    "a name with NUL": ("name", "A\x00da"),
    "a name with a line break": ("name", "Ada\n"),
    "a name of 10 kB": ("name", "x" * 10_000),
    "an e-mail that is an object": ("email", {"$gt": ""}),
    "an e-mail that is a list": ("email", ["ada@example.org"]),
    "an e-mail that is a number": ("email", 7),
    "an e-mail that is null": ("email", None),
    "an e-mail with NUL": ("email", "ada\x00@example.org"),
    "an e-mail of 10 kB": ("email", "x" * 10_000 + "@example.org"),
    "an e-mail that is none": ("email", "' OR 1=1 --"),
    "an e-mail with a second line": ("email", "ada@example.org\nBcc: eve@example.org"),
    "a password that is an object": ("password", {"$ne": None}),
    "a password that is a list": ("password", [PASSWORD]),
    "a password that is a number": ("password", 12345678),
    "a password that is null": ("password", None),
    "an empty password": ("password", ""),
    "a password of 7 characters": ("password", "x7!kQ9z"),
    "a password of 1,025 bytes": ("password", "x" * 1025),
    "a password of 513 characters in 1,026 bytes": ("password", "é" * 513),
    "a password of 10 kB": ("password", "x" * 10_000),
    "a common password": ("password", "password123"),
}


@pytest.mark.parametrize(("field", "value"), FIELDS.values(), ids=FIELDS)
async def test_a_sign_up_with_a_bad_field_names_it(sqlite_client: Client, field: str, value: Any) -> None:
    answer = await sqlite_client.post("/user/signup", ADA | {field: value})
    assert_problem(answer, 422)
    assert list(answer.fields) == [field]
    (message,) = [error["message"] for error in answer.json["errors"]]
    assert message.endswith(".")
    assert not re.search(r"regex|[\\^`]", message), message


async def test_a_refused_e_mail_is_answered_with_a_sentence(sqlite_client: Client) -> None:
    answer = await sqlite_client.post("/user/signup", ADA | {"email": "ada at example.org"})
    (error,) = answer.json["errors"]
    assert error["message"].startswith("This must be an e-mail address, for example ada@example.org")


async def test_all_that_is_wrong_is_named_at_once(sqlite_client: Client) -> None:
    answer = await sqlite_client.post("/user/signup", {"name": 7, "email": "x", "role": "admin"})
    assert_problem(answer, 422)
    expected = {"role": "unknown", "name": "invalid", "email": "invalid", "password": "missing"}
    assert answer.fields == expected


CREDENTIALS = {
    "SQL as an e-mail": ("' OR 1=1 --", PASSWORD),
    "SQL as a password": ("ada@example.org", "' OR 1=1 --"),
    "SQL in both": ("' OR 1=1 --", "' OR 1=1 --"),
    "a pattern": ("%", PASSWORD),
    "nothing": ("", ""),
    "NUL in the password": ("ada@example.org", PASSWORD + "\x00"),
    "the password cut": ("ada@example.org", PASSWORD[:-1]),
    "the password and a space": ("ada@example.org", PASSWORD + " "),
    "the password in capitals": ("ada@example.org", PASSWORD.upper()),
}


@pytest.mark.parametrize(("email", "password"), CREDENTIALS.values(), ids=CREDENTIALS)
async def test_a_log_in_with_wrong_credentials(client: Client, email: str, password: str) -> None:
    await client.sign_up()
    assert_problem(await client.log_in(email, password), 401)


@pytest.mark.parametrize("length", [72, 73, 1024])
async def test_a_long_password_counts_to_its_last_byte(client: Client, length: int) -> None:
    password = "x" * (length - 1) + "y"
    assert (await client.sign_up(password=password)).status == 201
    assert (await client.log_in(password=password)).status == 200
    for wrong in (password[:-1], password[:-1] + "z", password[:72] if length > 72 else password + "y"):
        assert_problem(await client.log_in(password=wrong), 401)


async def test_a_hundred_wrong_passwords_have_to_wait(sqlite_client: Client) -> None:
    await sqlite_client.sign_up()
    answers = [await sqlite_client.log_in(password=f"wrong password {number}") for number in range(100)]
    assert answers[0].status == 401
    assert_problem(answers[-1], 429)
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert {"code", "limit", "retryAfterMs"} <= set(answers[-1].json)


async def test_the_same_sign_up_twice_at_once_makes_one_account(client: Client) -> None:
    answers = await asyncio.gather(client.sign_up(), client.sign_up(email="ADA@example.org"))
    assert sorted(answer.status for answer in answers) == [201, 409]


METHODS = {
    "GET of a sign-up": ("GET", "/user/signup", 405),
    "DELETE of a log-in": ("DELETE", "/user/login", 405),
    "PUT of devices": ("PUT", "/devices", 405),
    "POST of keys": ("POST", "/.well-known/jwks.json", 405),
    "an invented method": ("BREW", "/user/login", 400),
    "a method of others": ("PROPFIND", "/user/login", 405),
    "TRACE": ("TRACE", "/devices", 405),
    "nowhere": ("GET", "/users", 404),
    "a path with a slash more": ("GET", "/devices/", 404),
    "a path that climbs": ("GET", "/devices/..%2F..%2Fetc%2Fpasswd%00", 401),
    "a path of 10 kB": ("GET", "/" + "x" * 10_000, 414),
}


@pytest.mark.parametrize(("method", "path", "status"), METHODS.values(), ids=METHODS)
async def test_a_bad_method_or_path(sqlite_client: Client, method: str, path: str, status: int) -> None:
    answer = await sqlite_client.call(method, path)
    assert_problem(answer, status)
    assert ("Allow" in answer.headers) == (status == 405)


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    """The service's own signing key, for bad tokens with a valid signature."""
    it = Issuer()
    pem = it.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    return it


@pytest.fixture
async def keyed_client(issuer: Issuer, sqlite_url: str, tmp_path: Path) -> AsyncIterator[Client]:
    await migrate(sqlite_url)
    async with running(make_settings(sqlite_url, signing_key_files=(str(tmp_path / "key.pem"),))) as it:
        yield it


# A change of the claims: None takes one away.
CLAIMS: dict[str, dict[str, Any]] = {
    **{
        f"no {name}": {name: None}
        for name in ("iss", "aud", "sub", "iat", "exp", "jti", "owner", "scope", "gen", "sid")
    },
    "exp as text": {"exp": "4102444800"},
    "exp of 10^30": {"exp": 10**30},
    "exp of a million years": {"exp": 10**13},
    "exp as a fraction": {"exp": lambda now: now + 60.5},
    "exp in the past": {"iat": 1_700_000_000, "exp": 1_700_000_060},
    "exp before iat": {"iat": lambda now: now, "exp": lambda now: now - 1},
    "iat as text": {"iat": "1"},
    "a numeric sub": {"sub": 7},
    "an empty sub": {"sub": ""},
    "a list as sub": {"sub": ["ada"]},
    "another audience": {"aud": "elsewhere"},
    "another issuer": {"iss": "elsewhere"},
    "gen as text": {"gen": "0"},
    "a session and a device": {"device": "press-1"},
    "not before tomorrow": {"nbf": lambda now: now + 86_400},
}


@pytest.mark.parametrize("change", CLAIMS.values(), ids=CLAIMS)
async def test_a_token_with_a_bad_claim(keyed_client: Client, issuer: Issuer, change: dict[str, Any]) -> None:
    token = await keyed_client.new_user()
    claims = {**jwt.decode(token, options={"verify_signature": False}), **at_this_time(change)}
    header = jwt.get_unverified_header(token)
    again = issuer.sign({name: value for name, value in claims.items() if value is not None}, header)
    assert_problem(await keyed_client.get("/user/token", token=again), 401)


HEADERS: dict[str, dict[str, Any]] = {
    "alg: none": {"alg": "none"},
    "alg: NONE": {"alg": "NONE"},
    "another alg": {"alg": "HS256"},
    "crit": {"crit": ["exp"]},
    "crit of an unknown extension": {"crit": ["x"], "x": 1},
    "no kid": {"kid": None},
    "an unknown kid": {"kid": "another"},
    "a kid like a path": {"kid": "../../../../dev/null"},
    "a kid like SQL": {"kid": "' UNION SELECT 'key"},
    "a numeric kid": {"kid": 7},
    "a kid that is a list": {"kid": []},
    "no typ": {"typ": None},
    "another typ": {"typ": "JWT"},
    "jku beside an unknown kid": {"kid": "mine", "jku": "http://127.0.0.1:1/jwks.json"},
}


@pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS)
async def test_a_token_with_a_bad_header(keyed_client: Client, issuer: Issuer, change: dict[str, Any]) -> None:
    token = await keyed_client.new_user()
    header = {**jwt.get_unverified_header(token), **change}
    claims = jwt.decode(token, options={"verify_signature": False})
    again = issuer.sign(claims, {name: value for name, value in header.items() if value is not None})
    assert_problem(await keyed_client.get("/user/token", token=again), 401)


async def test_a_good_token_of_the_same_make_is_taken(keyed_client: Client, issuer: Issuer) -> None:
    """The unchanged token is accepted, so bad tokens are refused only for what a test changes."""
    token = await keyed_client.new_user()
    claims = jwt.decode(token, options={"verify_signature": False})
    again = issuer.sign(claims, jwt.get_unverified_header(token))
    assert (await keyed_client.get("/user/token", token=again)).status == 200


def forgeries(token: str, issuer: Issuer) -> dict[str, str]:
    """Return tokens that none of the service's keys has signed."""
    head, body, signature = token.split(".")
    header = jwt.get_unverified_header(token)
    pem = issuer.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    hs256 = b64_json(header | {"alg": "HS256"}) + "." + body
    mac = jwt.get_algorithm_by_name("HS256")
    stranger = Issuer()
    claims = jwt.decode(token, options={"verify_signature": False})
    own_key = header | {"jwk": stranger.jwk(), "jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/"}
    return {
        "alg none, no signature": b64_json(header | {"alg": "none"}) + f".{body}.",
        "no signature": f"{head}.{body}.",
        "HS256 with the public key": f"{hs256}.{b64(mac.sign(hs256.encode(), issuer.public_bytes))}",
        "HS256 with the public key as PEM": f"{hs256}.{b64(mac.sign(hs256.encode(), pem))}",
        "HS256 without a key": f"{hs256}.{b64(mac.sign(hs256.encode(), b''))}",
        "another's key": stranger.sign(claims, header),
        "another's key, brought along": stranger.sign(claims, own_key),
        "other claims": f"{head}.{b64_json(claims | {'sub': 'eve', 'owner': 'eve'})}.{signature}",
        "another header": f"{b64_json(header | {'x': 1})}.{body}.{signature}",
        "a changed signature": f"{head}.{body}.{signature[:-4]}AAAA",
        "two parts": f"{head}.{body}",
        "four parts": f"{token}.{signature}",
        "no JWT": "x",
        "dots": "..",
        "a space": f"{token} x",
        "a header that is a list": f"{b64(b'[]')}.{body}.{signature}",
        "a header that is deep": f"{b64(b'[' * 3000)}.{body}.{signature}",
        "9 kB": token + "x" * 9000,
        "1 MB": "x" * 1_000_000,
        "1 MB of a JWT": f"{head}.{'x' * 1_000_000}.{signature}",
    }


async def test_a_forged_token(keyed_client: Client, issuer: Issuer) -> None:
    token = await keyed_client.new_user()
    for name, forged in forgeries(token, issuer).items():
        answer = await keyed_client.get("/user/token", token=forged)
        assert answer.status == 401, name
        assert_problem(answer, 401)


async def test_tokens_serve_only_for_what_they_are(client: Client) -> None:
    await client.sign_up()
    session = (await client.log_in()).json
    access, refresh = session["accessToken"], session["refreshToken"]
    assert_problem(await client.get("/user/token", token=refresh), 401)
    assert_problem(await client.get("/devices", token=refresh), 401)
    assert_problem(await client.post("/user/refresh", {"refreshToken": access}), 401)
    device = await client.new_device(access)
    device_token = (await client.post(f"/devices/{device['id']}/token", token=access)).json["token"]
    assert_problem(await client.get("/devices", token=device_token), 403)
    assert_problem(await client.post("/user/refresh", {"refreshToken": device_token}), 401)


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "Basic YWRhOmFkYQ==", "Bearer a b", "Token x"])
async def test_another_authorization(sqlite_client: Client, authorization: str) -> None:
    answer = await sqlite_client.get("/user/token", headers={"Authorization": authorization})
    assert_problem(answer, 401)


async def test_a_token_in_the_address_is_not_taken(sqlite_client: Client) -> None:
    token = await sqlite_client.new_user()
    assert_problem(await sqlite_client.get(f"/user/token?access_token={token}"), 401)
