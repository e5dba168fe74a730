"""The command line of `python -m onebox`: parses arguments, runs a onebox, returns the exit code."""

import os
import sys
from pathlib import Path

from onebox.app import Onebox
from onebox.data_folder import FolderInUse, locked
from onebox.run import Plan
from onebox.services import SERVICES, ignored_variables, services_from_env
from onebox.settings import OneboxSettings
from runtime.command_line import MAX_PORT, CommandParser, positive_number, whole_number
from runtime.logs import configure_logs, logger
from runtime.process import run_until_stopped, warn_of_ignored, warn_of_unread
from runtime.settings import SettingsError, from_env
from simulator.replay.options import FILES, add_replay_options, replay_of

log = logger("onebox")

MAX_DEVICES = 100_000

EXIT_CODES = """\
exit codes:
  0  no reading was lost
  1  readings were lost, or it could not go on
  2  a setting, the command line, the file of a replay or the data folder is wrong

signals:
  SIGTERM, SIGINT (Ctrl-C)  drain within DRAIN_SECONDS, print a summary, leave nothing running
  a second one              exit at once, with 1"""


def main(arguments: list[str]) -> int:
    """Run a onebox and return the exit code, as listed in EXIT_CODES."""
    plan = parse(arguments)
    try:
        services, settings = services_from_env(plan), from_env(OneboxSettings)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logs(settings.log_level, settings.log_format)
    if ignored := ignored_variables():
        log.warning("Variables are set that a onebox sets itself; they are ignored.", variables=ignored)
    warn_of_unread(OneboxSettings, *SERVICES)
    warn_of_ignored()
    # Only the user may read databases, queue and secrets, whatever the folder's mode.
    os.umask(0o077)
    onebox = Onebox(plan, settings, services)
    try:
        with locked(plan.data):
            code = run_until_stopped(onebox.run, settings.drain_seconds)
    except FolderInUse as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{plan.data} cannot be used: {error.strerror or error}; choose another folder with --data\n")
        return 2
    if onebox.error:
        sys.stderr.write(f"{onebox.error}\n")
        return onebox.error_code
    for failure in onebox.failures:
        sys.stderr.write(f"{failure}\n")
    if onebox.summary is None:
        return code or 1
    sys.stdout.write(onebox.summary.json() if plan.json else onebox.summary.text())
    sys.stdout.flush()
    return 1 if onebox.summary.lost or onebox.failures else code


def parse(arguments: list[str]) -> Plan:
    """Return the plan; like argparse, print help or an error and end the process."""
    parser = CommandParser(
        prog="python -m onebox",
        description="The whole pipeline on this machine: accounts, gateway, queue, storage, reader, alarms "
        "and simulated devices.",
        epilog=f"{FILES}\n\nThe services read their own settings, except HOST, PORT and the URLs: see "
        "`python -m gateway --help`, and the same for auth, persister, reader and alarms. Settings "
        "of the onebox itself:",
        settings=OneboxSettings,
        exit_codes=EXIT_CODES,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    add(
        "--port",
        type=whole_number(0, MAX_PORT),
        default=8080,
        metavar="P",
        help="port (default %(default)s; 0: any free one)",
    )
    add(
        "--data",
        type=Path,
        default=Path("data"),
        metavar="DIR",
        help="folder for all data (default ./%(default)s)",
    )
    add(
        "--devices",
        type=whole_number(0, MAX_DEVICES),
        default=None,
        metavar="N",
        help="simulated devices (default 20, with --replay 1; 0: none)",
    )
    add(
        "--rate",
        type=positive_number,
        default=1.0,
        metavar="R",
        help="readings a second and device (default %(default)g)",
    )
    add("--seconds", type=positive_number, metavar="S", help="stop after S seconds, drain, print a summary")
    add("--json", action="store_true", help="print the summary as one JSON object, on the last line of standard output")
    add_replay_options(parser)
    given = parser.parse_args(arguments)
    replay = replay_of(parser, given)
    if replay and given.devices == 0:
        parser.error("--replay needs devices that send the file: --devices 1, or leave --devices out")
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
