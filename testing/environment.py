"""Virtual environments with PyPI packages that some tests need and the project does not depend on."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def python_with(requirements: Path, package: str) -> Path:
    """Return the Python of an environment with these requirements; cached, some 10 s the first time on a machine.

    If it cannot be made, skip the test, or in CI fail it.
    """
    version = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidegate-tests"
    cache.mkdir(parents=True, exist_ok=True)
    made = cache / f"{package}-{version}"
    with Path(f"{made}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be installing
        if not (made / "done").exists():
            shutil.rmtree(made, ignore_errors=True)
            if why := _install(made, requirements):
                if os.environ.get("CI"):
                    pytest.fail(f"{package} is needed and cannot be installed: {why}")
                pytest.skip(f"{package} cannot be installed, nothing is tested with it: {why}")
            (made / "done").touch()
    return made / "bin" / "python"


def _install(made: Path, requirements: Path) -> str:
    """Install, and return the error, empty if there was none."""
    pip = [str(made / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)]
    for command in ([sys.executable, "-m", "venv", str(made)], pip):
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        if done.returncode:
            return (done.stderr or done.stdout).strip()
    return ""
