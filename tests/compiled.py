"""The tests run on the sources; with TIDEGATE_COMPILED=required on the modules that `make build-fast` has compiled."""

import os

from runtime.compiled import VARIABLE, use_compiled

# Processes that tests start take the same.
os.environ.setdefault(VARIABLE, "off")
use_compiled()


def pytest_report_header() -> str:
    """Say which."""
    return f"{VARIABLE}={os.environ[VARIABLE]}"
