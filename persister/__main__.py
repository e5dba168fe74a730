"""`python -m persister`: store readings until a signal ends it. Run as many as you like on one queue."""

import sys

from persister.app import serve
from persister.settings import PersisterSettings
from runtime.process import run_service

if __name__ == "__main__":
    sys.exit(run_service(PersisterSettings, serve))
