"""Other Pythons, of other Debian suites, with the packages that a program needs for them.

Packages are installed by this environment's pip, as wheels: nothing is compiled for them.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from testing.servers.debian import NotAvailableError

INSTALL_TIMEOUT_S = 900


def packages_for(root: Path, version: str, requirements: Path) -> Path:
    """Return a folder with packages for the Python of a root folder; cached beside it, a minute the first time.

    NotAvailableError if one of them has no wheel for that Python.
    """
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    folder = root.parent / f"packages-{version}-{digest}"
    if folder.exists():
        return folder
    unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--python-version", version, "--only-binary=:all:", "--target", str(unfinished)),
        *("--requirement", str(requirements)),
    ]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
        )
        if done.returncode:
            why = (done.stderr or done.stdout).strip().splitlines()[-1]
            raise NotAvailableError(f"packages for Python {version}: {why}")
        with suppress(OSError):  # another run has done it
            unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder
