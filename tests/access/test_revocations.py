"""The revocation list: what each entry revokes, and what is known while the issuer is unreachable."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from access.claims import Verified
from access.revocations import (
    ALL_EVERY_S,
    RevocationKeys,
    RevocationList,
    fetch_revocations_over_http,
    revocation_keys_of,
)
from access.tokens import KeySet, TokenError, TokenVerifier
from auth.migrate import migrate
from runtime.http.listen import listen
from tests.auth.service import Client, make_settings, running

USER = RevocationKeys("jti-u", "owner", 3, "family", None, "key-1")
DEVICE = RevocationKeys("jti-d", "owner", 3, None, "device", "key-2")
KEY = RevocationKeys("key-u", "owner", 0, None, None, "key-1")
DEVICE_OF_KEY = RevocationKeys("jti-k", "owner", 3, None, "device", "key-2", "key-u")
LATER = "2040-01-01T00:00:00.000Z"


class Issuer:
    """Serves its entries, and records the cursors requested."""

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
        (item("jti", "jti-u", until=4_102_444_800_000), True, False),
        (item("kid", "key-1"), True, False),
        (item("kid", "key-2"), False, True),
        (item("kid", "jti-u"), False, False),
        # Past by this clock: but it is listed.
        (item("jti", "jti-u", until="2020-01-01T00:00:00Z"), True, False),
    ],
)
async def test_what_an_entry_ends(entry: dict[str, Any], user: bool, device: bool) -> None:
    known = RevocationList(Issuer(entry).fetch)
    assert await known.refresh()
    assert (known.is_revoked(USER), known.is_revoked(DEVICE)) == (user, device)


@pytest.mark.parametrize(
    ("entry", "key", "device"),
    [
        (item("jti", "key-u"), True, True),
        (item("jti", "jti-k"), False, True),
        (item("kid", "key-1"), True, False),
        (item("user", "owner"), True, True),
        # A new password: keys end with it only if asked, and then by their `jti`.
        (item("user", "owner", 4), False, False),
        (item("device", "device", 4), False, True),
        (item("sid", "key-u"), False, False),
    ],
)
async def test_what_an_entry_ends_of_an_api_key_and_of_what_it_issued(
    entry: dict[str, Any], key: bool, device: bool
) -> None:
    known = RevocationList(Issuer(entry).fetch)
    assert await known.refresh()
    assert (known.is_revoked(KEY), known.is_revoked(DEVICE_OF_KEY)) == (key, device)


async def test_a_lower_gen_that_comes_later_takes_nothing_back() -> None:
    issuer = Issuer(item("device", "device", 9))
    known = RevocationList(issuer.fetch)
    await known.refresh()
    issuer.items = [item("device", "device", 2)]
    await known.refresh()
    assert known.is_revoked(DEVICE)


async def test_claims_are_in_force_revoked_or_not_to_be_judged_yet() -> None:
    issuer = Issuer()
    known = RevocationList(issuer.fetch)
    claims = Verified(
        "iss", "tidegate", "device", 1, 2, "jti-d", "owner", "readings:write", 3, device="device", kid="key-2"
    )
    with pytest.raises(TokenError) as raised:
        known.require_active(claims)
    assert raised.value.code == "unavailable"
    await known.refresh()
    assert known.require_active(claims) == DEVICE
    issuer.items = [item("jti", "jti-d")]
    await known.refresh()
    with pytest.raises(TokenError) as raised:
        known.require_active(claims)
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
    known = RevocationList(issuer.fetch)
    await known.refresh()
    await known.check()
    issuer.raw = bad or b" "
    assert not await known.refresh()
    assert known.is_revoked(USER)
    with pytest.raises(TokenError):
        await known.check()
    issuer.raw = None
    assert await known.refresh()
    await known.check()


async def test_each_question_goes_back_by_30_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("access.revocations.time.monotonic", lambda: now[0])
    issuer = Issuer()
    known = RevocationList(issuer.fetch)
    for number in range(40):
        issuer.cursor = number
        await known.refresh()
        now[0] += 2
    assert issuer.asked[:16] == [None] * 16
    assert issuer.asked[16:] == [str(number) for number in range(24)]


async def test_watchers_are_told_when_the_list_has_grown_and_only_then() -> None:
    issuer = Issuer(item("jti", "jti-u"))
    known = RevocationList(issuer.fetch)
    told: list[int] = []
    with known.watched_by(lambda: told.append(len(known))):
        await known.refresh()
        await known.refresh()
        issuer.items.append(item("sid", "family"))
        await known.refresh()
    issuer.items.append(item("sid", "another"))
    await known.refresh()
    assert told == [1, 2]


class Clocks:
    """The wall clock and the monotonic clock, set by a test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.today, self.now = time.time(), 1000.0
        monkeypatch.setattr("access.revocations.time.time", lambda: self.today)
        monkeypatch.setattr("access.revocations.time.monotonic", lambda: self.now)

    async def pass_s(self, seconds: float, known: RevocationList) -> None:
        """Advance both clocks, with a poll every 2 s."""
        for _ in range(round(seconds / 2)):
            self.today += 2
            self.now += 2
            await known.refresh()


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


class WholeListIssuer(Issuer):
    """Serves its entries, like `auth`, to requests for the whole list only; later cursors have seen them already."""

    async def fetch(self, since: str | None) -> bytes:
        self.asked.append(since)
        items = self.items if since is None else []
        return json.dumps({"items": items, "cursor": self.cursor}).encode()


async def test_a_clock_that_was_an_hour_ahead_for_a_minute_makes_no_revoked_token_work_again(clocks: Clocks) -> None:
    until = int(clocks.today * 1000) + 1_800_000
    issuer = WholeListIssuer(item("jti", "jti-u", until=until), item("kid", "key-2", until=until))
    known = RevocationList(issuer.fetch)
    await clocks.pass_s(120, known)
    clocks.today += 3600
    await clocks.pass_s(60, known)
    assert known.is_revoked(USER)
    clocks.today -= 3600
    await clocks.pass_s(900, known)
    assert known.is_revoked(USER)
    assert known.is_revoked(DEVICE)


async def test_what_the_issuer_lost_counts_until_two_whole_lists_were_without_it(clocks: Clocks) -> None:
    issuer = WholeListIssuer(item("jti", "jti-u", until=int(clocks.today * 1000) + 1_800_000))
    known = RevocationList(issuer.fetch)
    await clocks.pass_s(120, known)
    issuer.items = []  # by a clock of its own that is ahead, or restored from an older copy
    await clocks.pass_s(1200, known)
    assert known.is_revoked(USER), "it is not past here"
    clocks.today += 3600
    await clocks.pass_s(610, known)  # one whole list in this time
    assert known.is_revoked(USER)
    clocks.today -= 3600
    await clocks.pass_s(300, known)
    assert known.is_revoked(USER)


async def test_what_no_longer_matters_is_forgotten_and_what_is_listed_never(clocks: Clocks) -> None:
    until = int(clocks.today * 1000) + 300_000
    issuer = WholeListIssuer(item("jti", "jti-u", until=until), item("jti", "jti-d", until=until))
    known = RevocationList(issuer.fetch)
    await clocks.pass_s(60, known)
    assert len(known) == 2
    issuer.items = issuer.items[1:]
    await clocks.pass_s(2 * ALL_EVERY_S + 300, known)
    assert (len(known), known.is_revoked(USER), known.is_revoked(DEVICE)) == (1, False, True)


async def test_everything_is_asked_for_every_ten_minutes_and_what_was_missed_is_learned(clocks: Clocks) -> None:
    issuer = WholeListIssuer()
    known = RevocationList(issuer.fetch)
    await clocks.pass_s(60, known)
    issuer.items = [item("jti", "jti-u")]
    await clocks.pass_s(ALL_EVERY_S, known)
    assert known.is_revoked(USER)
    assert issuer.asked[16:].count(None) == 1, "until a cursor is 30 s old there is none to ask with"


async def test_a_whole_list_that_cannot_be_had_does_not_hold_up_what_is_new(clocks: Clocks) -> None:
    items: list[dict[str, Any]] = []

    async def fetch(since: str | None) -> bytes:
        if since is None and items:
            raise TimeoutError
        return json.dumps({"items": items, "cursor": "1"}).encode()

    known = RevocationList(fetch)
    await clocks.pass_s(60, known)
    items.append(item("jti", "jti-u"))
    await clocks.pass_s(2, known)
    assert known.is_revoked(USER)
    items[:] = [item("jti", "jti-d")]
    clocks.now += ALL_EVERY_S
    await clocks.pass_s(4, known)
    assert known.is_revoked(DEVICE)


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
            known = RevocationList(fetch)
            assert await known.refresh()
            assert known.is_revoked(USER)
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
    marks = revocation_keys_of(await TokenVerifier(KeySet(client.service.jwks)).verify(issued.json["token"]))
    async with RevocationList(client.service.revocations).kept_fresh() as known:
        assert not known.is_revoked(marks)
        await client.call("DELETE", f"/devices/{device['id']}/tokens", token=token)
        await known.refresh()
        assert known.is_revoked(marks)


@pytest.mark.parametrize("began_well", [True, False])
async def test_an_outage_of_the_issuer_is_told_once_and_its_end_once(began_well: bool) -> None:
    issuer, away = Issuer(), ConnectionRefusedError("nobody listens")
    issuer.raw = None if began_well else away
    revoked = RevocationList(issuer.fetch)
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
