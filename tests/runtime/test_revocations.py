"""The list of revoked tokens: what each entry ends, and what it knows while its issuer is away."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from auth.migrate import migrate
from runtime import revocations
from runtime.listen import listen
from runtime.revocations import Marks, Revocations, fetch_revocations_over_http
from runtime.tokens import Claims, TokenError
from tests.auth.service import Client, make_settings, running

USER = Marks("jti-u", "owner", 3, "family", None)
DEVICE = Marks("jti-d", "owner", 3, None, "device")
LATER = "2040-01-01T00:00:00.000Z"


class Issuer:
    """Answers with what it has, and remembers what it was asked."""

    def __init__(self, *items: dict[str, Any]) -> None:
        self.items = list(items)
        self.cursor: Any = "1"
        self.asked: list[str | None] = []
        self.raw: bytes | Exception | None = None

    async def fetch(self, since: str | None) -> bytes:
        self.asked.append(since)
        if isinstance(self.raw, Exception):
            raise self.raw
        return self.raw or json.dumps({"items": self.items, "cursor": self.cursor}).encode()


def item(kind: str, name: str, gen: int | None = None, until: Any = LATER) -> dict[str, Any]:
    return {"kind": kind, "id": name, "until": until} | ({} if gen is None else {"gen": gen})


@pytest.mark.parametrize(
    ("entry", "user", "device"),
    [
        (item("jti", "jti-u"), True, False),
        (item("jti", "jti-d"), False, True),
        (item("sid", "family"), True, False),
        (item("user", "owner"), True, True),
        (item("user", "owner", 4), True, False),
        (item("user", "owner", 3), False, False),
        (item("device", "device"), False, True),
        (item("device", "device", 4), False, True),
        (item("device", "device", 3), False, False),
        (item("user", "device"), False, False),
        (item("device", "owner"), False, False),
        (item("sid", "jti-u"), False, False),
        (item("something new", "owner"), False, False),
        (item("jti", "jti-u", until=int(time.time() * 1000) + 86_400_000), True, False),
        (item("jti", "jti-u", until="2020-01-01T00:00:00Z"), False, False),
    ],
)
async def test_what_an_entry_ends(entry: dict[str, Any], user: bool, device: bool) -> None:
    known = Revocations(Issuer(entry).fetch)
    assert await known.refresh()
    assert (known.revoked(USER), known.revoked(DEVICE)) == (user, device)


async def test_a_lower_gen_that_comes_later_takes_nothing_back() -> None:
    issuer = Issuer(item("device", "device", 9))
    known = Revocations(issuer.fetch)
    await known.refresh()
    issuer.items = [item("device", "device", 2)]
    await known.refresh()
    assert known.revoked(DEVICE)


async def test_claims_are_in_force_revoked_or_not_to_be_judged_yet() -> None:
    issuer = Issuer()
    known = Revocations(issuer.fetch)
    claims = Claims("iss", "tidegate", "device", 1, 2, "jti-d", "owner", "readings:write", 3, device="device")
    with pytest.raises(TokenError) as raised:
        known.require_valid(claims)
    assert raised.value.code == "unavailable"
    await known.refresh()
    assert known.require_valid(claims) == DEVICE
    issuer.items = [item("jti", "jti-d")]
    await known.refresh()
    with pytest.raises(TokenError) as raised:
        known.require_valid(claims)
    assert raised.value.code == "revoked"


BAD_ANSWERS = [
    b"",
    b"<html>",
    b"[]",
    b'{"items":[]}',
    b'{"items":[{"kind":"jti"}],"cursor":"2"}',
    b'{"items":[{"kind":"jti","id":7,"until":1}],"cursor":"2"}',
    b"\xff",
    TimeoutError(),
    OSError("away"),
    aiohttp.ClientError("away"),
]


@pytest.mark.parametrize("bad", BAD_ANSWERS, ids=repr)
async def test_while_the_issuer_is_away_or_odd_what_is_known_stays(bad: bytes | Exception) -> None:
    issuer = Issuer(item("jti", "jti-u"))
    known = Revocations(issuer.fetch)
    await known.refresh()
    await known.check()
    issuer.raw = bad or b" "
    assert not await known.refresh()
    assert known.revoked(USER)
    with pytest.raises(TokenError):
        await known.check()
    issuer.raw = None
    assert await known.refresh()
    await known.check()


async def test_each_question_goes_back_by_30_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("runtime.revocations.time.monotonic", lambda: now[0])
    issuer = Issuer()
    known = Revocations(issuer.fetch)
    for number in range(40):
        issuer.cursor = number
        await known.refresh()
        now[0] += 2
    assert issuer.asked[:16] == [None] * 16
    assert issuer.asked[16:] == [str(number) for number in range(24)]


async def test_watchers_are_told_when_the_list_has_grown_and_only_then() -> None:
    issuer = Issuer(item("jti", "jti-u"))
    known = Revocations(issuer.fetch)
    told: list[int] = []
    with known.watched_by(lambda: told.append(len(known))):
        await known.refresh()
        await known.refresh()
        issuer.items.append(item("sid", "family"))
        await known.refresh()
    issuer.items.append(item("sid", "another"))
    await known.refresh()
    assert told == [1, 2]


async def test_what_no_longer_matters_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "FORGET_EVERY_S", 0.0)
    issuer = Issuer(item("jti", "jti-u", until=int(time.time() * 1000) + 300), item("jti", "jti-d"))
    known = Revocations(issuer.fetch)
    await known.refresh()
    assert len(known) == 2
    issuer.items = []
    now = time.time()
    monkeypatch.setattr("runtime.revocations.time.time", lambda: now + 1)
    await known.refresh()
    await known.refresh()
    assert (len(known), known.revoked(USER), known.revoked(DEVICE)) == (1, False, True)


async def test_over_http_the_cursor_is_the_question_and_a_refusal_is_no_answer() -> None:
    asked: list[str | None] = []
    status = 200

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.query.get("since"))
        return web.json_response({"items": [item("jti", "jti-u")], "cursor": "7"}, status=status)

    app = web.Application()
    app.router.add_get("/revocations", answer)
    async with aiohttp.ClientSession() as session:
        async with listen(app, "127.0.0.1", 0) as port:
            fetch = fetch_revocations_over_http(session, f"http://127.0.0.1:{port}/")
            known = Revocations(fetch)
            assert await known.refresh()
            assert known.revoked(USER)
            await fetch("a&b")
            status = 503
            assert not await known.refresh()
        assert not await known.refresh()
    assert asked[:2] == [None, "a&b"]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    url = f"sqlite+aiosqlite:///{tmp_path / 'users.db'}"
    await migrate(url)
    async with running(make_settings(url)) as found:
        yield found


async def test_what_auth_revokes_is_revoked_here(client: Client) -> None:
    token = await client.new_user()
    device = await client.new_device(token)
    issued = await client.post(f"/devices/{device['id']}/token", token=token)
    claims = (await client.get("/user/token", token=issued.json["token"])).json
    marks = Marks(claims["jti"], claims["owner"], claims["gen"], None, claims["device"])
    async with Revocations(client.service.revocations).kept_fresh() as known:
        assert not known.revoked(marks)
        await client.call("DELETE", f"/devices/{device['id']}/tokens", token=token)
        await known.refresh()
        assert known.revoked(marks)


@pytest.mark.parametrize("began_well", [True, False])
async def test_an_outage_of_the_issuer_is_told_once_and_its_end_once(began_well: bool) -> None:
    issuer, away = Issuer(), ConnectionRefusedError("nobody listens")
    issuer.raw = None if began_well else away
    revoked = Revocations(issuer.fetch)
    with capture_logs() as logs:
        assert await revoked.refresh() is began_well
        for issuer.raw in (away, away, None, None, away):
            await revoked.refresh()
    assert [(line["log_level"], line["event"]) for line in logs] == [
        ("warning", "The list of revoked tokens could not be fetched."),
        ("info", "The list of revoked tokens is fetched again."),
        ("warning", "The list of revoked tokens could not be fetched."),
    ]
    assert "nobody listens" in logs[0]["error"]
