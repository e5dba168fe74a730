"""Virtual environments of packages that Tidegate does not use, cached between runs."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidegate-tests"


def python_with(*packages: str) -> str:
    """Return a Python with these packages (`name==version`); takes a few seconds the first time on a machine.

    If they cannot be installed, the test is skipped; in CI it fails.
    """
    folder = CACHE / "-".join(("python", f"{sys.version_info.major}.{sys.version_info.minor}", *packages))
    python = folder / "bin" / "python"
    CACHE.mkdir(parents=True, exist_ok=True)
    with folder.with_name(folder.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test worker may be installing
        if not (folder / "done").exists():
            for command in (
                [sys.executable, "-m", "venv", "--clear", str(folder)],
                [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
            ):
                done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
                if done.returncode:
                    error = (done.stderr or done.stdout).strip().splitlines()[-1]
                    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"cannot be installed: {packages}: {error}")
            (folder / "done").touch()
    return str(python)
