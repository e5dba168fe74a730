"""The command line of `python -m onebox`, from arguments to exit code."""

import argparse
import os
import sys
from pathlib import Path

from onebox.app import Onebox
from onebox.lock import FolderInUse, locked
from onebox.plan import Plan
from onebox.services import SERVICES, not_taken, services_from_env
from onebox.settings import OneboxSettings
from runtime.command_line import CommandParser
from runtime.logs import configure_logs, logger
from runtime.process import run_until_stopped, warn_of_unread
from runtime.settings import SettingsError, from_env
from simulator.replay.options import EPILOG as REPLAY_EPILOG
from simulator.replay.options import add_replay_options, replay_of

log = logger("onebox")

ENDS = """\
exit codes:
  0  all is well
  1  readings were lost, or it could not go on
  2  a setting, the command line, the file of a replay or the data folder is wrong

signals:
  SIGTERM, SIGINT (Ctrl-C)  drains within DRAIN_SECONDS, prints a summary, leaves nothing running
  a second one              ends it at once, with 1"""


def main(arguments: list[str]) -> int:
    """Run a onebox; 0 all is well, 1 readings were lost or it could not go on, 2 the command is wrong."""
    plan = parse(arguments)
    try:
        services, settings = services_from_env(plan), from_env(OneboxSettings)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logs(settings.log_level, settings.log_format)
    if unused := not_taken():
        log.warning("Some variables are set that a onebox makes itself; they are not taken.", variables=unused)
    warn_of_unread(OneboxSettings, *SERVICES)
    # Databases, queue and secrets are for their user only, in whatever folder they lie.
    os.umask(0o077)
    onebox = Onebox(plan, settings, services)
    try:
        with locked(plan.data):
            code = run_until_stopped(onebox.run, settings.drain_seconds)
    except FolderInUse as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{plan.data} cannot be used: {error.strerror or error}; take another folder with --data\n")
        return 2
    if onebox.trouble:
        sys.stderr.write(f"{onebox.trouble}\n")
        return onebox.trouble_code
    for failure in onebox.failures:
        sys.stderr.write(f"{failure}\n")
    if onebox.summary is None:
        return code or 1
    sys.stdout.write(onebox.summary.json() if plan.json else onebox.summary.text())
    sys.stdout.flush()
    return 1 if onebox.summary.lost or onebox.failures else code


def parse(arguments: list[str]) -> Plan:
    """Return what is to be run; prints help or an error and ends the process as argparse does."""
    parser = CommandParser(
        prog="python -m onebox",
        description="The whole pipeline on this machine: accounts, gateway, queue, storage and simulated devices.",
        epilog=f"{REPLAY_EPILOG}\n\nSettings of the services are taken as theirs, but for HOST, PORT and the URLs: "
        "`python -m gateway --help`, and alike for auth, persister and reader. Those of its own:",
        settings=OneboxSettings,
        ends=ENDS,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    add("--port", type=_port, default=8080, metavar="P", help="port (default %(default)s; 0: any free one)")
    add(
        "--data",
        type=Path,
        default=Path("data"),
        metavar="DIR",
        help="where everything is kept (default ./%(default)s)",
    )
    add(
        "--devices",
        type=_count,
        default=None,
        metavar="N",
        help="simulated devices (default 20, with --replay 1; 0: none)",
    )
    add("--rate", type=_positive, default=1.0, metavar="R", help="readings a second and device (default %(default)g)")
    add("--seconds", type=_positive, metavar="S", help="stop after this time, drain, print a summary")
    add("--json", action="store_true", help="the summary is one JSON object on the last line of standard output")
    add_replay_options(parser)
    given = parser.parse_args(arguments)
    replay = replay_of(parser, given)
    return Plan(
        host=given.host,
        port=given.port,
        data=given.data.absolute(),
        devices=given.devices if given.devices is not None else (1 if replay else 20),
        rate=given.rate,
        replay=replay,
        seconds=given.seconds,
        json=given.json,
    )


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 100_000:
        raise argparse.ArgumentTypeError("a number from 0 to 100000")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("a number above 0")
    return number
