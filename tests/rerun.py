"""`--rerun`: what failed beside other tests runs once more, one at a time; what passes then does not fail the run.

A pytest plugin, for `make test` and `make test-compiled`. Thousands of tests with real servers and browsers share two
processors, and now and then one waits longer for a processor than for what it tests. CPython's regrtest has the same
option. The end of the run names each such test, and its first failure stays in the output.

Tests that account for readings never run again: one that is lost once in a hundred runs is lost. Nor does anything when
more than MOST failed: then something is broken.
"""

import subprocess
import sys

import pytest

MOST = 10
# Folders whose tests count the readings that were lost, or stored twice.
ONCE = ("tests/faults/", "tests/power/", "tests/simulation/", "tests/soak/")


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
        # In their order; a dict because setup, call and teardown of one test may each fail.
        self._failed: dict[str, None] = {}
        self._passed_alone: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember a test that failed, or whose process ended."""
        if report.failed:
            self._failed[report.nodeid] = None

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember a file whose tests are unknown."""
        if report.failed:
            self._failed[report.nodeid] = None

    @pytest.hookimpl(trylast=True)  # once the workers and their servers have ended
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Run them again; with all of them passed, so has the run."""
        if exitstatus != pytest.ExitCode.TESTS_FAILED or len(self._failed) > MOST:
            return
        self._passed_alone = [test for test in self._failed if may_run_again(test) and self._passes(test)]
        if len(self._passed_alone) == len(self._failed):
            session.exitstatus = pytest.ExitCode.OK

    def _passes(self, test: str) -> bool:
        print(f"\nRunning it again, alone: {test}", flush=True)
        command = (sys.executable, "-m", "pytest", "-n", "0", "-q", test)
        return subprocess.run(command, cwd=self._config.rootpath, check=False).returncode == 0

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name those that passed alone."""
        for test in self._passed_alone:
            terminalreporter.write_line(f"FAILED BESIDE OTHERS, PASSED ALONE {test}", yellow=True)


def may_run_again(test: str) -> bool:
    """Return whether a node id is a test's, and none of those that account for readings."""
    return "::" in test and not test.startswith(ONCE)
