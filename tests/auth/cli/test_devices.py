"""Operators import devices and issue their tokens."""

import csv
import io
import re
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from auth.cli.common import RefusedError
from auth.cli.devices import run_devices
from auth.settings import DeviceSettings
from tests.auth.processes import auth
from tests.auth.service import SECRET, claims_of, is_active, make_settings, running

ROWS = 'name,sensorType,location\na,temperature,"hall 3, left"\nb,pressure,hall 3\n'


async def test_operators_import_devices_and_issue_their_tokens(
    started_database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite+aiosqlite:///{shutil.copy(started_database, tmp_path / 'users.db')}"
    settings = DeviceSettings(auth_database_url=url, signing_key_secret=SECRET)
    file = tmp_path / "devices.csv"

    async def run(**arguments: Any) -> list[dict[str, str]]:
        """Run a command in this process; return its lines."""
        capsys.readouterr()
        await run_devices(settings, Namespace(**{"owner": "ada@example.org"} | arguments))
        return rows(capsys.readouterr().out)

    async with running(make_settings(url)) as client:
        ada = await client.new_user()
        await client.new_user("bob@example.org")
        file.write_text(ROWS)
        imported = await auth(
            url, "devices", "import", str(file), "--owner", "Ada@example.org", "--tokens", SIGNING_KEY_SECRET=SECRET
        )
        assert imported.code == 0, imported.err
        found = rows(imported.out)
        items = (await client.get("/devices", token=ada)).json["items"]
        assert [(item["id"], item["name"]) for item in items] == [(row["id"], row["name"]) for row in found]
        assert items[0]["location"] == "hall 3, left"
        for row in found:
            assert await is_active(client, row["token"])
            assert row["token"] not in imported.err
        assert "by=operator" in imported.err

        file.write_text(ROWS + "a,pressure,\n,x,\n")
        with pytest.raises(RefusedError, match="2 of 4 rows were refused"):
            await run(verb="import", file=str(file), tokens=False)
        assert [row["code"] for row in rows(capsys.readouterr().out)] == ["", "", "taken", "invalid"]

        assert [row["id"] for row in await run(verb="tokens", names=["b"])] == [items[1]["id"]]
        everything = await run(verb="tokens", names=[])
        assert [row["name"] for row in everything] == ["a", "b"]
        assert await is_active(client, everything[0]["token"])
        assert claims_of(everything[0]["token"])["owner"] == claims_of(ada)["sub"]
        for message, arguments in (
            ("no device named c", {"verb": "tokens", "names": ["b", "c"]}),
            ("eve@example.org has no account", {"verb": "tokens", "names": [], "owner": "eve@example.org"}),
            ("cannot be read", {"verb": "import", "file": str(tmp_path / "missing"), "tokens": False}),
        ):
            with pytest.raises(RefusedError, match=message):
                await run(**arguments)
        file.write_text("name,location\n")
        with pytest.raises(RefusedError, match="sensorType: This column is required"):
            await run(verb="import", file=str(file), tokens=False)


def rows(text: str) -> list[dict[str, str]]:
    """Return the lines of CSV; log lines come before it, where both are captured."""
    start = re.search(r"^(index,)?id,name", text, re.MULTILINE)
    return list(csv.DictReader(io.StringIO(text[start.start() :] if start else "")))
