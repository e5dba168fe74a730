"""`python -m alarms`: evaluate rules and deliver notifications until a signal stops it."""

import sys

from runtime.start import TRACEBACKS, quick_imports

ABOUT = "Evaluates owners' rules on what is stored, keeps their alarms, and delivers notifications."

if __name__ == "__main__":
    with quick_imports(*TRACEBACKS):
        from alarms.app import serve
        from alarms.settings import AlarmsSettings
        from runtime.command_line import run_service_command

    sys.exit(run_service_command(sys.argv[1:], "alarms", ABOUT, AlarmsSettings, serve))
