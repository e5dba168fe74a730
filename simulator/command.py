"""The command line of `python -m simulator`: parse the arguments, run a fleet, print a summary, return an exit code."""

import argparse
import sys
from collections.abc import Sequence

import msgspec

from readings.reading import MAX_READINGS
from runtime.command_line import CommandParser, positive_number, run_service_command, whole_number
from runtime.logs import configure_logs
from runtime.process import Shutdown, run_until_stopped
from simulator.account_options import add_account_options, password_of
from simulator.errors import ReplayError, SimulatorError
from simulator.fleet import REPLAY_BATCH, FleetPlan, run_fleet
from simulator.import_command import main as import_main
from simulator.progress import progress
from simulator.replay.options import FILES, add_replay_options, replay_of
from simulator.replay.report import print_report
from simulator.run_stats import RunStats, RunSummary
from simulator.serve import serve
from simulator.settings import SimulatorSettings

EPILOG = f"""\
examples:
  TIDEGATE_PASSWORD=... python -m simulator --url http://127.0.0.1:8080 --email me@example.org --devices 50 --rate 5
  python -m simulator --url http://127.0.0.1:8080 --email me@example.org --devices 1 --replay readings.csv --json
  python -m simulator --url http://127.0.0.1:8080 --email me@example.org --replay plant.csv --time-column when \\
      --value-column bar --sensor-type pressure --missing NA --missing '?'

{FILES}

`python -m simulator import FILE…` sends files once, as the devices that they or options name, and `python -m simulator
serve` runs the simulator as a service; `python -m simulator serve --help` explains it.

exit codes: 0 every reading was acknowledged; 1 a device failed or readings were not acknowledged; 2 bad arguments or a
bad file. Ctrl-C stops sending, waits for readings in flight and prints the summary; a second one ends at once."""

SERVE_ABOUT = """Starts, lists and stops simulated devices for users with an access token: POST /simulator/devices
registers a device for the user at TARGET_URL and starts it, GET lists the user's devices, and DELETE
/simulator/devices/{id} stops one."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["import"]:
        return import_main(arguments[1:])
    if arguments[:1] == ["serve"]:
        return run_service_command(arguments[1:], "simulator serve", SERVE_ABOUT, SimulatorSettings, serve)
    parser = _parser()
    options = parser.parse_args(arguments)
    plan = _plan(parser, options)
    configure_logs("warning", "console")
    run = _Run(plan)
    code = run_until_stopped(run.serve, plan.stop_flush_seconds + 2)
    if run.error:
        sys.stderr.write(f"simulator: {run.error}\n")
        return run.code
    _print(run.stats, as_json=options.json)
    return code or (1 if run.stats.failed else 0)


class _Run:
    def __init__(self, plan: FleetPlan) -> None:
        self._plan = plan
        self.stats = RunStats()
        self.error = ""
        self.code = 1

    async def serve(self, shutdown: Shutdown) -> None:
        plan = self._plan
        title = f"{plan.devices} devices → {plan.url}" + (f" · {plan.replay.path.name}" if plan.replay else "")
        try:
            async with progress(self.stats, title=title, seconds=plan.seconds):
                await run_fleet(plan, stats=self.stats, stop=shutdown.event, on_survey=print_report)
        except SimulatorError as error:
            self.error = str(error)
            self.code = 2 if isinstance(error, ReplayError) else 1


def _print(stats: RunStats, *, as_json: bool) -> None:
    summary = stats.summary()
    for failure in stats.failures:
        sys.stderr.write(f"{failure}\n")
    if stats.failed > len(stats.failures):
        sys.stderr.write(f"and {stats.failed - len(stats.failures)} more devices failed\n")
    if as_json:
        sys.stdout.write(msgspec.json.encode(summary).decode() + "\n")
    else:
        sys.stdout.write(summary_text(summary) + "\n")
    sys.stdout.flush()


def summary_text(summary: RunSummary) -> str:
    """Return the summary as text."""
    return (
        f"sent {summary.sent:,} readings, acknowledged {summary.acked:,} "
        f"({summary.accepted:,} accepted, {summary.rejected:,} rejected) in {summary.seconds:g} s: "
        f"{summary.readings_per_second:,.0f} a second\n"
        f"acknowledged after {summary.ack_p50_ms:g} ms (p50), {summary.ack_p99_ms:g} ms (p99); "
        f"resent {summary.retried:,}, reconnected {summary.reconnects:,} times"
    )


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m simulator",
        description="Simulated devices for a running Tidegate; sim-0001, sim-0002, … are registered as needed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add_account_options(parser, email_help="the account that owns the devices; it is signed up if it does not exist")
    add("--devices", type=whole_number(1, 100_000), default=10, metavar="N", help="number of devices (default: 10)")
    add("--rate", type=positive_number, default=1.0, metavar="R", help="readings per second and device (default: 1)")
    batch_help = f"readings per event, at most {MAX_READINGS} (default: 1; in a replay {REPLAY_BATCH})"
    add("--batch", type=whole_number(1, MAX_READINGS), metavar="B", help=batch_help)
    add("--seconds", type=positive_number, metavar="S", help="stop after S seconds (default: run until stopped)")
    add("--json", action="store_true", help="print the summary as one JSON object on standard output")
    add_replay_options(parser)
    return parser


def _plan(parser: argparse.ArgumentParser, options: argparse.Namespace) -> FleetPlan:
    password = password_of(parser, options)
    replay = replay_of(parser, options)
    try:
        return FleetPlan(
            url=options.url,
            email=options.email,
            password=password,
            devices=options.devices,
            rate=options.rate,
            batch=options.batch,
            seconds=options.seconds,
            replay=replay,
        )
    except ValueError as error:
        parser.error(str(error))
