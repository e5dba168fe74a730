"""`python -m reader`: serve history, the live feed and the dashboard until a signal stops it."""

import sys

from runtime.start import TRACEBACKS, quick_imports

ABOUT = "Serves stored and live readings: history, exports, newest values, the live feed and the dashboard."

if __name__ == "__main__":
    with quick_imports(*TRACEBACKS):
        from reader.app import serve
        from reader.settings import ReaderSettings
        from runtime.command_line import run_service_command

    sys.exit(run_service_command(sys.argv[1:], "reader", ABOUT, ReaderSettings, serve))
