"""`--rerun`: what failed runs once more, one test at a time; what passes then does not fail the run.

A pytest plugin, for `make test` and `make test-compiled`. Thousands of tests with real servers and browsers share two
processors, and now and then one waits longer for a processor than for what it tests. CPython's regrtest has the same
option. The end of the run names each such test, and its first failure stays in the output.

Tests that account for readings never run again: one that is lost once in a hundred runs is lost. Nor does a test whose
process ended, and nothing does in a run that was cut short or in which more than MOST failed.
"""

import re
import subprocess
import sys

import pytest

MOST = 10
# Where tests count what was lost, or stored or sent twice.
ONCE = (
    "tests/alarms/test_killed.py",
    "tests/broker/test_contract.py",
    "tests/device/",
    "tests/e2e/test_onebox.py",
    "tests/faults/",
    "tests/integration/",
    "tests/persister/",
    "tests/power/",
    "tests/proxy/test_replicas.py",
    "tests/reader/test_moving.py",
    "tests/simulation/",
    "tests/soak/",
    "tests/storage/",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption("--rerun", action="store_true", help="run what failed once more, one test at a time")


def pytest_configure(config: pytest.Config) -> None:
    """Watch the whole run, not that of one of its workers."""
    if config.option.rerun and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Rerun(config), "rerun")


class Rerun:
    """Remembers what fails, and runs it again at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        # In their order, with whether each may run again; setup, call and teardown of one test may each fail.
        self._failed: dict[str, bool] = {}
        self._passed_alone: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember a test that failed, or whose process ended, as pytest-xdist reports it: when it was in no phase."""
        if report.failed:
            has_ended = report.when not in {"setup", "call", "teardown"}
            self._failed[report.nodeid] = not has_ended and not report.nodeid.startswith(ONCE)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember a file whose tests are unknown."""
        if report.failed:
            self._failed[report.nodeid] = False

    @pytest.hookimpl(trylast=True)  # once the workers and their servers have ended
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Run them again; with all of them passed, so has the run."""
        if exitstatus != pytest.ExitCode.TESTS_FAILED or session.exitstatus != exitstatus:
            return
        if session.shouldfail or session.shouldstop or not 0 < len(self._failed) <= MOST:
            return
        self._passed_alone = [test for test, may_run in self._failed.items() if may_run and self._passes(test)]
        if len(self._passed_alone) == len(self._failed):
            session.exitstatus = pytest.ExitCode.OK

    def _passes(self, test: str) -> bool:
        print(f"\nRunning it again, alone: {test}", flush=True)
        command = (sys.executable, "-m", "pytest", "-n", "0", "-q", test)
        ran = subprocess.run(command, cwd=self._config.rootpath, check=False, stdout=subprocess.PIPE, text=True)
        print(ran.stdout)
        return ran.returncode == 0 and is_passed(ran.stdout)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name those that passed alone."""
        for test in self._passed_alone:
            terminalreporter.write_line(f"FAILED, PASSED ALONE {test}", yellow=True)


def is_passed(output: str) -> bool:
    """Return whether pytest's output ends with one test that passed: none that was skipped, or failed as expected."""
    return re.search(r"^1 passed(, \d+ warnings?)? in [^\n]*\s*\Z", output, re.MULTILINE) is not None
