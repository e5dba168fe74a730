"""`python -m simulator import` with an API key, against auth and gateway on a real port."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.onebox.everything import MANAGE, READ, WRITE, Client, everything
from tests.reader.harness import Mongo


@pytest.fixture
async def client(tmp_path: Path, mongodb_database: Mongo) -> AsyncIterator[Client]:
    async with everything(tmp_path, mongodb_database) as found:
        yield found


async def run_import(client: Client, folder: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    """Import two readings; return the exit code, and what was printed."""
    file = folder / "a.csv"
    file.write_text("t,a\n2026-01-31 00:00,1\n2026-01-31 01:00,2\n")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "simulator", "import", str(file), "--url", client.url, "--device", "d:1", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=inherited | variables,
    )
    async with asyncio.timeout(100):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode() + err.decode()


async def test_an_import_takes_an_api_key_in_place_of_a_password(client: Client, tmp_path: Path) -> None:
    _, ada = await client.new_user("ada@example.org")
    made = await client.new_key(ada, (WRITE,))
    for arguments, variables in ((("--token", made["key"]), {}), ((), {"TIDEGATE_TOKEN": made["key"]})):
        code, said = await run_import(client, tmp_path, *arguments, **variables)
        assert code == 0, said
        assert "acknowledged 2 (2 accepted, 0 rejected)" in said
        assert made["key"] not in said
    await client.call("DELETE", f"/keys/{made['id']}", ada)
    code, said = await run_import(client, tmp_path, TIDEGATE_TOKEN=made["key"])
    assert (code, "import: the API key is not accepted: GET /user/token: 401" in said) == (1, True), said


async def test_a_key_that_may_not_import_is_told_why(client: Client, tmp_path: Path) -> None:
    _, ada = await client.new_user("ada@example.org")
    device = await client.new_device(ada)
    limited = (await client.new_key(ada, devices=[device]))["key"]
    reads = (await client.new_key(ada, (READ, MANAGE)))["key"]
    of_device = (await client.json("POST", f"/devices/{device}/token", ada))["token"]
    for token, why in (
        (limited, "this API key is limited to its devices, and may not import"),
        (reads, "it has not the scope readings:write"),
        (of_device, "the token is a device's"),
    ):
        code, said = await run_import(client, tmp_path, TIDEGATE_TOKEN=token)
        assert (code, why in said) == (1, True), said


async def test_a_command_line_names_one_account(client: Client, tmp_path: Path) -> None:
    for arguments, variables, why in (
        ((), {}, "an account is required: --email and its password, or an API key as --token or TIDEGATE_TOKEN"),
        (("--email", "a@b.example", "--token", "x"), {}, "--token and --email: give one of them"),
        (("--email", "a@b.example"), {"TIDEGATE_TOKEN": "x"}, "a password is required: --password"),
        ((), {"TIDEGATE_TOKEN": "a\nb"}, "a blank or another character that no token has"),
    ):
        code, said = await run_import(client, tmp_path, *arguments, **variables)
        assert (code, why in said) == (2, True), said
