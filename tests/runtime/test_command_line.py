"""Every process explains itself without any settings, and an unknown argument gets a hint."""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import auth.cli.command
import broker.operator.command
import onebox.command
import persister.command
import simulator.command
from gateway.settings import GatewaySettings
from reader.settings import ReaderSettings
from runtime.command_line import number_between, positive_number, run_service_command, whole_number
from runtime.process import Shutdown
from runtime.settings import table
from runtime.version import VERSION
from tools.settings_table import SERVICES

ROOT = Path(__file__).parents[2]
SERVING = {name: settings for name, settings in SERVICES.items() if name != "onebox"}
COMMANDS = ["auth migrate", "auth users create", "persister erase", "broker dead-letters list", "simulator"]


def run(command: str, *arguments: str, columns: int = 100, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in an environment without any of our settings."""
    return subprocess.run(
        [sys.executable, "-m", *command.split(), *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": str(columns), "LC_ALL": "C.UTF-8", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", SERVING)
def test_a_service_explains_itself_without_any_setting(name: str) -> None:
    shown = run(name, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"usage: python -m {name} ")
    lines = shown.stdout.splitlines()
    for variable, default, about in table(SERVING[name]):
        (line,) = [line for line in lines if line.startswith(f"  {variable} ")]
        assert line.split()[1:] == [default]
        assert about.replace("`", "")[:20] in shown.stdout
    for words in (
        "exit codes:",
        "0  stopped cleanly",
        "2  a setting or the command line is wrong",
        "SIGTERM",
        "SIGINT",
    ):
        assert words in shown.stdout
    assert max(map(len, lines)) <= 100
    settings: Any = SERVING[name]
    assert ("one of debug, info, warning, error" in shown.stdout) == hasattr(settings, "log_level")


def test_the_simulator_as_a_service_has_a_help_of_its_own() -> None:
    fleet, service = run("simulator", "--help").stdout, run("simulator serve", "--help").stdout
    assert "TARGET_URL" in service
    assert "--email" not in service
    assert "--email" in fleet
    assert "TARGET_URL" not in fleet
    assert "python -m simulator serve --help" in fleet


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_explains_itself_without_any_setting(command: str) -> None:
    shown = run(command, "--help", columns=80)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"usage: python -m {command} ")


@pytest.mark.parametrize("command", ["onebox", "broker"])
def test_what_is_no_service_says_how_it_ends_too(command: str) -> None:
    shown = run(command, "--help").stdout
    assert {"settings, from the environment:", "exit codes:", "signals:"} <= set(shown.splitlines())


@pytest.mark.parametrize("command", ["auth", "broker", "gateway", "onebox", "persister", "reader", "simulator"])
def test_every_command_prints_its_version_without_any_setting(command: str) -> None:
    shown = run(command, "--version")
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, f"tidegate {VERSION}\n", "")


UNKNOWN = {
    "a setting as an argument": ("gateway --port 80", "unrecognized arguments: --port 80\n", "environment: PORT=… in"),
    "a setting with its value": ("reader --max-live=3", "--max-live=3\n", "environment: MAX_LIVE=… in"),
    "a setting of a service with commands": ("auth --signup=closed", "--signup=closed\n", "environment: SIGNUP=… in"),
    "a setting of the simulator": ("simulator serve --port 1", "--port 1\n", "environment: PORT=… in"),
    "a command that is none": ("gateway serve", "unrecognized arguments: serve\n", "python -m gateway --help"),
    "a misspelt option": ("onebox --devises 3", "--devises 3\n", "Do you mean --devices?"),
    "an option of another command": ("auth migrate --json", "--json\n", "See python -m auth migrate --help"),
    "a misspelt option of a command": ("auth keys rotate --nwo", "--nwo\n", "Do you mean --now?"),
    "a misspelt option of a fleet": ("simulator --url http://a --email b --bacth 3", "--bacth 3\n", "mean --batch?"),
    "a wrong command": ("persister erasse x", "invalid choice: 'erasse'", "'erase'"),
    "a wrong choice": ("broker dead-letters list --reason refussed", "invalid choice: 'refussed'", "'refused', "),
}


async def never(settings: Any, shutdown: Shutdown) -> None:
    raise AssertionError("a wrong command line starts nothing")


MAINS: dict[str, Callable[[list[str]], object]] = {
    "auth": auth.cli.command.main,
    "broker": broker.operator.command.main,
    "gateway": lambda arguments: run_service_command(arguments, "gateway", "", GatewaySettings, never),
    "onebox": onebox.command.main,
    "persister": persister.command.main,
    "reader": lambda arguments: run_service_command(arguments, "reader", "", ReaderSettings, never),
    "simulator": simulator.command.main,
}


@pytest.mark.parametrize(("command", "told", "hint"), UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_argument_is_an_error_with_a_hint(
    command: str, told: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *arguments = command.split()
    try:
        code = MAINS[name](arguments)
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    for words in (told, hint, "--help for all options"):
        assert words in said.err


@pytest.mark.parametrize(
    ("convert", "good", "bad"),
    [
        (whole_number(1, 9), {"1": 1, "9": 9}, ["0", "10", "-1", "1.0", "1_0", "٣", "", "x"]),
        (whole_number(0), {"0": 0, "1000000": 1_000_000}, ["-1", "x"]),
        (number_between(0, 2), {"0": 0, "1.5": 1.5, "2": 2}, ["-1", "2.1", "nan", "inf", "x"]),
        (positive_number, {"0.1": 0.1, "1e3": 1000}, ["0", "-1", "nan", "inf", "x", ""]),
    ],
)
def test_a_number_out_of_range_is_refused_with_the_range(
    convert: Callable[[str], float], good: dict[str, float], bad: list[str]
) -> None:
    assert {text: convert(text) for text in good} == good
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match=f"^'{text}' must be a "):
            convert(text)


def test_a_terminal_without_our_signs_is_shown_the_rest() -> None:
    shown = run("gateway", "--help", PYTHONIOENCODING="ascii")
    assert shown.returncode == 0
    assert "amqp://?" in shown.stdout
