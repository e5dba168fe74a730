"""npm packages for the tests that need them."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

INSTALL = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]


def node_with(folder: Path, package: str) -> str:
    """Install the folder's package.json and return the path of Node.js; without Node.js skip, or in CI fail."""
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        if os.environ.get("CI"):
            pytest.fail(f"node and npm are needed for {package}")
        pytest.skip(f"node and npm are not installed: nothing is tested with {package}")
    with (folder / "package.json").open("rb") as description:
        fcntl.flock(description, fcntl.LOCK_EX)  # another worker may be installing
        if not (folder / "node_modules" / package).exists():
            done = subprocess.run(INSTALL, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
            assert done.returncode == 0, done.stderr or done.stdout
    return found
