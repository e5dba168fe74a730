"""README is true: its table is generated from the settings, and its examples are run."""

import importlib.metadata
import json
import os
import re
import shlex
import subprocess
import sys
from asyncio import create_subprocess_exec, timeout
from asyncio.subprocess import PIPE
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.onebox_process import ROOT, running_onebox, signed_up, start_onebox
from tests.integration.services import SECRET, started
from tests.readme import arguments_of_make_run, commands, shell, shell_lines
from tools.settings_table import README, SETTINGS, VARIABLES, settings_page, variables, with_table

CSV = {"timestamp": "2026-01-31T12:00:00Z", "value": "20.5"}


def test_the_settings_tables_are_generated_from_the_settings() -> None:
    text = README.read_text()
    assert text == with_table(text), "run: make settings"
    assert SETTINGS.read_text() == settings_page(), "run: make settings"


def test_every_process_knows_the_variables_of_the_others() -> None:
    assert VARIABLES.read_text() == variables(), "run: make settings"


def test_every_line_of_a_shell_example_is_of_a_kind_that_is_run_here() -> None:
    starts = ("make ", "curl ", "python -m ", "TOKEN=$(curl ", "DEVICE=$(curl ", "DEVICE_TOKEN=$(curl ")
    assert [line for line in shell_lines() if not line.startswith(starts)] == []


@pytest.mark.parametrize("command", sorted(set(commands("make "))))
def test_make_knows_every_command_that_is_named(command: str) -> None:
    done = subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for _, arguments in re.findall(r'(ARGS|COMPOSE)="([^"]*)"', command):
        assert arguments in done.stdout


def test_compose_knows_what_make_up_is_given() -> None:
    compose = (ROOT / "compose.yaml").read_text()
    for command in commands("make up"):
        for profile in re.findall(r"--profile (\w+)", command):
            assert f"profiles: [{profile}]" in compose
        for service in re.findall(r"--scale (\w+)=", command):
            assert f"\n  {service}:\n" in compose


def test_an_extra_that_pip_is_told_is_written_as_the_package_writes_it() -> None:
    """Before 23.3, pip ignores an extra that is spelled differently."""
    named = re.findall(r'pip install "([\w-]+)\[([\w-]+)\]"', README.read_text())
    assert named
    for package, extra in named:
        assert extra in (importlib.metadata.metadata(package).get_all("Provides-Extra") or [])


@pytest.mark.parametrize(("arguments", "comment"), list(arguments_of_make_run()))
async def test_make_run_does_what_its_arguments_say(tmp_path: Path, arguments: list[str], comment: str) -> None:
    """For 3 seconds: of an option that is given twice, the later counts."""
    if "--replay" in arguments:
        file = arguments.index("--replay") + 1
        columns = re.findall(r"columns ([\w,]+)", comment)[0].split(",")
        rows = tmp_path / arguments[file]
        arguments = [*arguments[:file], str(rows), *arguments[file + 1 :]]
        rows.write_text(",".join(columns) + "\n" + ",".join(CSV[column] for column in columns) + "\n")
    process = await start_onebox(*arguments, "--port", "0", "--seconds", "3", data=tmp_path / "data")
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    told = json.loads(out.splitlines()[-1])
    assert told["lost"] == told["rejected"] == 0
    if "--replay" in arguments:
        assert told["stored"] == 1
    else:
        assert (told["stored"] > 0) == (arguments[arguments.index("--devices") + 1] != "0")


async def test_the_calls_of_curl_register_a_device_send_as_it_and_read_it_back(tmp_path: Path) -> None:
    async with running_onebox("--devices", "0", data=tmp_path / "data") as (_, url), AsyncExitStack() as stack:
        person = await signed_up(url, tmp_path / "data")
        lines = commands("curl ", "TOKEN=", "DEVICE=", "DEVICE_TOKEN=")
        (sends,) = (line for line in lines if "$URL/readings" in line and " -d " in line)
        (listens,) = (line for line in lines if line.startswith("curl -N"))
        (exports,) = (line for line in lines if "format=csv" in line)
        environment = {"URL": url, "EMAIL": person["email"], "PASSWORD": person["password"]}
        said = await shell(
            f"cd {tmp_path}\n"
            + "\n".join(line for line in lines if line not in (sends, listens, exports))
            + '\necho; echo "$TOKEN $DEVICE $DEVICE_TOKEN"',
            **environment,
        )
        environment |= dict(zip(("TOKEN", "DEVICE", "DEVICE_TOKEN"), said.splitlines()[-1].split(), strict=True))
        assert f'"id":"{environment["DEVICE"]}"' in said
        live = await create_subprocess_exec("bash", "-c", f"exec {listens}", env=os.environ | environment, stdout=PIPE)
        stack.push_async_callback(live.wait)
        stack.callback(live.kill)
        assert live.stdout
        async with timeout(30):
            await live.stdout.readuntil(b": live")
            answer = json.loads(await shell(sends, **environment))
            assert answer["accepted"] == 1
            assert [(one["index"], one["code"]) for one in answer["rejected"]] == [(1, "invalid_value")]
            told = await live.stdout.readuntil(b'"value":20.5')
            assert environment["DEVICE"].encode() in told
            rows: list[str] = []
            while len(rows) < 2:
                await shell(f"cd {tmp_path}\n{exports}", **environment)
                rows = (tmp_path / "readings.csv").read_text().splitlines()
        assert len(rows) == 2
        assert "20.5" in rows[1]


async def test_the_simulator_of_readme_runs_against_the_address_of_a_whole_system(tmp_path: Path) -> None:
    (command,) = commands("python -m simulator")
    async with running_onebox("--devices", "0", data=tmp_path) as (_, url):
        here = command.replace("http://127.0.0.1:8080", url).replace("python", sys.executable, 1)
        assert url in here
        said = await shell(f"{here} --devices 2 --seconds 1 --json", TIDEGATE_PASSWORD="correct horse battery")
    assert json.loads(said.splitlines()[-1])["accepted"] > 0


async def test_what_operators_type_runs_beside_the_parts_that_are_started_as_readme_says(
    tmp_path: Path, mongodb_database: tuple[str, str]
) -> None:
    settings = {
        "AUTH_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path / 'users.db'}",
        "SIGNING_KEY_SECRET": SECRET,
        "BCRYPT_COST": "4",
        "KEY_PUBLISH_SECONDS": "0",
        "BROKER_URL": f"embedded://{tmp_path / 'queue.db'}",
        "READINGS_URL": mongodb_database[0],
        "READINGS_DATABASE": mongodb_database[1],
    }
    python = [line.replace("python", sys.executable, 1) for line in commands("python -m ")]
    migrates, *rest = (line for line in python if "simulator" not in line)
    assert migrates.endswith(" auth migrate")
    await shell(migrates, **settings)
    service = re.compile(r"-m (\w+(?: compact)?)$")
    parts = [found[1] for line in rest if (found := service.search(line))]
    assert parts == ["auth", "gateway", "persister", "persister compact", "reader"]
    async with AsyncExitStack() as stack:
        for part in parts:
            one = await stack.enter_async_context(started(part, **settings))
            settings |= {"AUTH_URL": one.url} if part == "auth" else {}
        person = {"name": "Ada", "email": "ada@example.org", "password": "correct horse battery"}
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{settings['AUTH_URL']}/user/signup", json=person) as made,
        ):
            assert made.status == 201
        devices = tmp_path / "devices.csv"
        devices.write_text("name,sensorType,location\npress-1,temperature,hall 3\n")
        for line in (line for line in rest if not service.search(line)):
            if "KID" in line:
                listed = await shell(f"{sys.executable} -m auth keys list", **settings)
                settings["KID"] = re.findall(r"[\w-]{43}", listed)[0]
            typed = line.replace("KID", "$KID").replace("OWNER", "somebody").replace("[NAME…]", "")
            await shell(typed.replace("FILE", str(devices)).replace("EMAIL", person["email"]), **settings)
