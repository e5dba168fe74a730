"""Operators import devices and issue their tokens."""

import csv
import io
import shutil
from pathlib import Path

from tests.auth.processes import Ran, auth
from tests.auth.service import SECRET, claims_of, is_active, make_settings, running

ROWS = 'name,sensorType,location\na,temperature,"hall 3, left"\nb,pressure,hall 3\n'


async def test_operators_import_devices_and_issue_their_tokens(started_database: Path, tmp_path: Path) -> None:
    database_url = f"sqlite+aiosqlite:///{shutil.copy(started_database, tmp_path / 'users.db')}"

    async def devices(*arguments: str, stdin: str = "") -> Ran:
        return await auth(database_url, "devices", *arguments, stdin=stdin, SIGNING_KEY_SECRET=SECRET)

    def rows(ran: Ran) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(ran.out)))

    owner = ("--owner", "Ada@example.org")
    file = tmp_path / "devices.csv"
    file.write_text(ROWS)
    async with running(make_settings(database_url)) as client:
        ada = await client.new_user()
        await client.new_user("bob@example.org")
        imported = await devices("import", str(file), *owner, "--tokens")
        assert imported.code == 0, imported.err
        found = rows(imported)
        items = (await client.get("/devices", token=ada)).json["items"]
        assert [(item["id"], item["name"]) for item in items] == [(row["id"], row["name"]) for row in found]
        assert items[0]["location"] == "hall 3, left"
        for row in found:
            assert await is_active(client, row["token"])
            assert row["token"] not in imported.err
        assert "by=operator" in imported.err

        again = await devices("import", "-", *owner, stdin=ROWS + "a,pressure,\n,x,\n")
        assert again.code == 1
        assert [row["code"] for row in rows(again)] == ["", "", "taken", "invalid"]
        assert "2 of 4 rows were refused" in again.err

        issued = await devices("tokens", "b", *owner)
        assert [row["id"] for row in rows(issued)] == [items[1]["id"]], issued.err
        everything = rows(await devices("tokens", *owner))
        assert [row["name"] for row in everything] == ["a", "b"]
        assert await is_active(client, everything[0]["token"])
        assert claims_of(everything[0]["token"])["owner"] == claims_of(ada)["sub"]
        unknown = await devices("tokens", "c", "--owner", "bob@example.org")
        assert (unknown.code, unknown.err) == (1, "The owner has no device named c.\n")
        assert (await devices("tokens", "--owner", "eve@example.org")).code == 1
        assert "cannot be read" in (await devices("import", "missing.csv", *owner)).err
        assert (
            "sensorType: This column is required."
            in (await devices("import", "-", *owner, stdin="name,location\n")).err
        )
