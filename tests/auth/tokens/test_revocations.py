import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from sqlalchemy import select, text

from access.tokens import CLOCK_AHEAD_S
from auth.accounts import Accounts
from auth.metrics import AuthMetrics
from auth.migrate import migrate
from auth.passwords import password_hasher
from auth.tokens.revocations import RevocationLog
from database.connection import Database, database_now_ms, open_database
from database.tables import revocations as table
from runtime.http.listen import listen
from runtime.http.problems import problem_middleware
from runtime.times import now_ms
from tests.auth.service import PASSWORD, Client, make_settings, running


async def listed(client: Client, since: str | None = None) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.json.decode(await client.service.revocations(since))
    return document


async def device_with_token(client: Client, token: str, **changes: Any) -> tuple[str, str]:
    device = await client.new_device(token, **changes)
    issued = await client.post(f"/devices/{device['id']}/token", token=token)
    return device["id"], issued.json["token"]


async def claims(client: Client, token: str) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/user/token", token=token)).json
    return found


async def test_each_ending_is_listed_with_what_it_ends(client: Client) -> None:
    token = await client.new_user()
    me = await claims(client, token)
    first, first_token = await device_with_token(client, token, name="first")
    second, second_token = await device_with_token(client, token, name="second")
    assert (await listed(client))["items"] == []

    assert (await client.call("DELETE", f"/devices/{first}/tokens", token=token)).status == 204
    assert (await client.call("DELETE", f"/devices/{second}", token=token)).status == 204
    for one in (first_token, second_token):
        assert (await client.get("/user/token", token=one)).json["code"] == "revoked"
    assert (await client.post("/user/logout", token=token)).status == 204
    token = (await client.log_in()).json["accessToken"]
    change = {"password": "another good one", "currentPassword": PASSWORD}
    await client.call("PATCH", "/user/me", json=change, token=token)
    token = (await client.log_in(password="another good one")).json["accessToken"]
    await client.call("DELETE", "/user/me", token=token)

    items = (await listed(client))["items"]
    assert [{name: value for name, value in item.items() if name != "until"} for item in items] == [
        {"kind": "device", "id": first, "gen": 1},
        {"kind": "device", "id": second},
        {"kind": "sid", "id": me["sid"]},
        {"kind": "user", "id": me["sub"], "gen": 1},
        {"kind": "user", "id": me["sub"]},
    ]
    hours = [(datetime.fromisoformat(item["until"]) - datetime.now(UTC)) / timedelta(hours=1) for item in items]
    assert [round(hour) for hour in hours] == [720, 720, 1, 1, 720]


async def test_a_revoked_device_gets_a_new_token_from_its_owner_only(client: Client) -> None:
    token = await client.new_user()
    device, device_token = await device_with_token(client, token)
    await client.call("DELETE", f"/devices/{device}/tokens", token=token)
    assert (await client.post(f"/devices/{device}/token", token=device_token)).status == 401
    renewed = (await client.post(f"/devices/{device}/token", token=token)).json["token"]
    assert (await claims(client, renewed))["gen"] == 1


async def test_a_cursor_gives_what_came_after_it(client: Client) -> None:
    token = await client.new_user()
    device, _ = await device_with_token(client, token)
    start = (await listed(client))["cursor"]
    await client.call("DELETE", f"/devices/{device}/tokens", token=token)
    first = await listed(client, start)
    assert [item["gen"] for item in first["items"]] == [1]
    assert (await listed(client, first["cursor"]))["items"] == []
    await client.call("DELETE", f"/devices/{device}/tokens", token=token)
    assert [item["gen"] for item in (await listed(client, first["cursor"]))["items"]] == [2]
    assert len((await listed(client, "999999999"))["items"]) == 2, "a number never given out starts over"


async def test_strangers_do_not_reach_the_list_where_it_is_not_mounted(client: Client) -> None:
    app = web.Application(middlewares=[problem_middleware])
    client.service.add_routes(app)
    async with listen(app, "127.0.0.1", 0) as port, aiohttp.ClientSession() as session:
        for path, status in (("/revocations", 404), ("/.well-known/jwks.json", 200)):
            async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                assert response.status == status


async def test_the_commit_order_hides_nothing_from_a_cursor(database_url: str) -> None:
    """With many concurrent writers, a reader that continues from each cursor sees all rows."""
    async with open_database(database_url, connections=8, timeout_s=10) as database:
        revocations = RevocationLog(database, access_s=60, device_s=60)
        seen: list[str] = []
        done = asyncio.Event()

        async def read() -> None:
            number = None
            while True:
                last = done.is_set()
                revoked = await revocations.after(number)
                seen.extend(item.id for item in revoked.items)
                number = revoked.number
                if last:
                    return

        async def write(name: str, linger_s: float) -> None:
            async with database.begin() as connection:
                await revocations.revoke_session(connection, name)
                await asyncio.sleep(linger_s)  # committed later than the number was given out

        reading = asyncio.ensure_future(read())
        await asyncio.gather(*(write(f"s{at}", 0.002 * (at % 7)) for at in range(40)))
        done.set()
        await reading
    assert set(seen) == {f"s{at}" for at in range(40)}


async def test_a_number_is_given_out_when_all_lower_ones_are_committed(database_url: str) -> None:
    """Two transactions overlap: the second waits for the first one's commit, so its number is not visible earlier."""
    async with open_database(database_url, connections=4, timeout_s=10) as database:
        revocations = RevocationLog(database, access_s=60, device_s=60)
        numbered, commit = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            async with database.begin() as connection:
                await revocations.revoke_session(connection, "first")
                numbered.set()
                await commit.wait()

        async def second() -> None:
            async with database.begin() as connection:
                await revocations.revoke_session(connection, "second")

        writing = asyncio.ensure_future(first())
        await numbered.wait()
        waiting = asyncio.ensure_future(second())
        done, _ = await asyncio.wait((waiting,), timeout=0.3)
        seen = await revocations.after(None)
        assert (done, seen.items, seen.number) == (set(), [], 0)
        commit.set()
        await asyncio.gather(writing, waiting)
        assert [item.id for item in (await revocations.after(seen.number)).items] == ["first", "second"]


async def test_many_rows_are_listed_at_once(database_url: str) -> None:
    """A user with the maximum number of devices is disabled in one transaction of default duration."""
    async with open_database(database_url, connections=1, timeout_s=10) as database:
        revocations = RevocationLog(database, access_s=60, device_s=60)
        devices = [(f"d{number}", 1) for number in range(10_000)]
        async with database.begin() as connection:
            await revocations.revoke_user_tokens(connection, "u", 1, devices)
        revoked = await revocations.after(None)
        assert [(item.kind, item.id) for item in revoked.items] == [
            ("user", "u"),
            *(("device", it) for it, _ in devices),
        ]
        assert revoked.number == 10_001


@pytest.mark.parametrize("since", ["x", "-1", "1.5", "1e3", "", "9" * 30, "1%0A", "%D9%A1"])
async def test_what_is_no_cursor_is_refused(sqlite_client: Client, since: str) -> None:
    answer = await sqlite_client.get(f"/revocations?since={since}")
    assert (answer.status, answer.fields) == (422, {"since": "invalid"})


async def written(database: Database, sid: str, *, ended_ago_s: int) -> None:
    """Write the revocation of a session whose last token expired `ended_ago_s` seconds ago."""
    revocations = RevocationLog(database, access_s=-ended_ago_s - CLOCK_AHEAD_S, device_s=60)
    async with database.begin() as connection:
        await revocations.revoke_session(connection, sid)


async def test_a_row_is_kept_beyond_its_end_for_hosts_whose_clocks_are_behind_and_then_goes(database_url: str) -> None:
    async with open_database(database_url, connections=1, timeout_s=5) as database:
        revocations = RevocationLog(database, access_s=60, device_s=60)
        await written(database, "an hour ago", ended_ago_s=3600)
        await written(database, "three hours ago", ended_ago_s=3 * 3600)
        assert [item.id for item in (await revocations.after(None)).items] == ["an hour ago"]
        await written(database, "present", ended_ago_s=-60)
        async with database.connect() as connection:
            rows = await connection.scalars(select(table.c.id).order_by(table.c.number))
            assert list(rows) == ["an hour ago", "present"]


async def test_in_sqlite_a_row_is_kept_for_twice_the_life_of_the_longest_token(sqlite_url: str) -> None:
    await migrate(sqlite_url)
    day = 86400
    async with open_database(sqlite_url, connections=1, timeout_s=5) as database:
        await written(database, "10 days ago", ended_ago_s=10 * day)
        for device_s, listed in ((30 * day, ["10 days ago"]), (day, [])):
            revocations = RevocationLog(database, access_s=60, device_s=device_s)
            assert [item.id for item in (await revocations.after(None)).items] == listed


async def test_the_clock_of_this_host_ends_no_revocation(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's clock jumps ahead by more than an hour during a read and a write, and then back."""
    async with open_database(database_url, connections=1, timeout_s=5) as database:
        revocations = RevocationLog(database, access_s=3600, device_s=3600)
        async with database.begin() as connection:
            await revocations.revoke_session(connection, "first")
        real, real_ns = time.time, time.time_ns
        with monkeypatch.context() as ahead:
            ahead.setattr(time, "time", lambda: real() + 3720)
            ahead.setattr(time, "time_ns", lambda: real_ns() + 3720 * 10**9)
            assert [item.id for item in (await revocations.after(None)).items] == ["first"]
            async with database.begin() as connection:
                await revocations.revoke_session(connection, "second")
        found = (await revocations.after(None)).items
        assert [item.id for item in found] == ["first", "second"]
        if database_url.startswith("mysql"):
            assert abs(found[0].until_ms - found[1].until_ms) < 60_000, "both ends are by the server's clock"


async def test_the_database_says_what_time_it_is(database_url: str) -> None:
    """In UTC, whatever the time zone of the session."""
    async with open_database(database_url, connections=1, timeout_s=5) as database, database.connect() as connection:
        if connection.dialect.name == "mysql":
            await connection.execute(text("SET time_zone = '+05:30'"))
        before = now_ms()
        said = await connection.scalar(select(database_now_ms()))
        assert isinstance(said, int)
        assert before - 2 <= said <= now_ms() + 2


async def test_a_disabled_user_is_out_with_all_devices_until_enabled(database_url: str) -> None:
    async with running(make_settings(database_url)) as client:
        token = await client.new_user()
        me = await claims(client, token)
        device, device_token = await device_with_token(client, token)
        async with open_database(database_url, connections=1, timeout_s=5) as database:
            with password_hasher(cost=4, threads=1, queue=1, metrics=AuthMetrics(CollectorRegistry())) as passwords:
                accounts = Accounts(database, passwords, RevocationLog(database, access_s=60, device_s=60))
                await accounts.disable(me["sub"])
                for one in (token, device_token):
                    assert (await client.get("/user/token", token=one)).json["code"] == "revoked"
                assert (await client.log_in()).status == 401
                kinds = {(item["kind"], item["id"], item["gen"]) for item in (await listed(client))["items"]}
                assert kinds == {("user", me["sub"], 1), ("device", device, 1)}
                await accounts.enable(me["sub"])
        token = (await client.log_in()).json["accessToken"]
        assert (await client.post(f"/devices/{device}/token", token=token)).status == 201
        assert (await client.get("/user/token", token=device_token)).status == 401
