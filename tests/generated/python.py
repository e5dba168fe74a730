"""openapi-python-client in an environment of its own, which the tests keep."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def python_with_generator() -> Path:
    """Return the Python that has the generator; some 20 s the first time on a machine, nothing after that.

    Where it cannot be installed, skip, but not in CI.
    """
    version = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidegate-tests"
    cache.mkdir(parents=True, exist_ok=True)
    made = cache / f"openapi-python-client-{version}"
    with Path(f"{made}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be installing
        if not (made / "done").exists():
            shutil.rmtree(made, ignore_errors=True)
            if why := _install(made):
                _missing(why)
            (made / "done").touch()
    return made / "bin" / "python"


def _install(made: Path) -> str:
    """Return why it could not be installed."""
    pip = [str(made / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS)]
    for command in ([sys.executable, "-m", "venv", str(made)], pip):
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        if done.returncode:
            return (done.stderr or done.stdout).strip()
    return ""


def _missing(why: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"openapi-python-client is needed and cannot be installed: {why}")
    pytest.skip(f"openapi-python-client cannot be installed, nothing is tested with it: {why}")
