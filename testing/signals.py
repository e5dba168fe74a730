"""Signals of programs that start servers, or make folders and mounts."""

import signal
import sys


def exit_on_sigterm() -> None:
    """Let SIGTERM end this process with SystemExit, its exit code 143: `finally` clauses clean up, as after Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
