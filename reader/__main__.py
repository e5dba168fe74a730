"""`python -m reader`: serve history, the live feed and the dashboard until a signal ends it."""

import sys

from reader.app import serve
from reader.settings import ReaderSettings
from runtime.process import run_service

if __name__ == "__main__":
    sys.exit(run_service(ReaderSettings, serve))
