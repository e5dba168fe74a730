"""The two versions that benchmarks compare: this tree, and the commit before blocks, in a work tree."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.processes import ROOT, BenchError, BenchProcess
from bench.report import progress

# The last commit before the second half of the storage was begun; the targets are ratios to it.
BASE = "91c8e3c"
GIT_TIMEOUT_S = 120
READY_SETTING = "OPS_PORT"


@dataclass(frozen=True)
class Version:
    """Services of one state of the code; `name` is also part of the names of its databases and logs."""

    name: str
    folder: Path

    def service(self, module: str, *arguments: str, log: Path, settings: dict[str, str]) -> BenchProcess:
        """Return one of its services, not started yet, on the same interpreter as this process."""
        command = [sys.executable, "-m", module, *arguments]
        return BenchProcess(command, log=log, environment=settings, folder=self.folder)

    @contextmanager
    def running(self, module: str, *arguments: str, log: Path, settings: dict[str, str]) -> Iterator[BenchProcess]:
        """Run one of its services, ready when something listens on its OPS_PORT."""
        with self.service(module, *arguments, log=log, settings=settings) as process:
            process.wait_for_port(int(settings[READY_SETTING]))
            yield process


NOW = Version("now", ROOT)


@contextmanager
def base_version(given: Path | None, temporary: Path) -> Iterator[Version | None]:
    """Yield the earlier version, from a checkout that was given or a work tree of this repository.

    None if this repository does not have the commit, as in a shallow clone; BenchError if the given one is no checkout.
    """
    if given is not None:
        if not (given / "reader" / "__main__.py").is_file():
            raise BenchError(f"{given} has no reader: --base takes a checkout of commit {BASE}")
        yield Version("before", given.resolve())
        return
    if _git("rev-parse", "--verify", "--quiet", f"{BASE}^{{commit}}") is None:
        yield None
        return
    folder = temporary / "base"
    if _git("worktree", "add", "--detach", str(folder), BASE) is None:
        raise BenchError(f"git worktree add {BASE} has failed")
    progress(f"commit {BASE} is checked out")
    try:
        yield Version("before", folder)
    finally:
        _git("worktree", "remove", "--force", str(folder))


def _git(*arguments: str) -> str | None:
    """Return what git prints; None if it fails, or there is no git."""
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
