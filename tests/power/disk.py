"""A mounted disk that forgets what was not synced when its power is cut, as seen by a test."""

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self


class ForgetfulDisk:
    """Mounted at a folder during the context, for this process alone; needs root and /dev/fuse."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.ignores_syncs = False

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.power.fuse", str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the test, which ends the servers first
        )
        assert self._answer() == "mounted", "the disk could not be mounted; this needs root and /dev/fuse"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def sync(self) -> None:
        """Make all durable, as if this had been written long ago."""
        self._do("sync")

    def cut(self, seed: int | None) -> None:
        """Cut the power, after the server was killed; part of what was not synced is kept, by this seed, or nothing."""
        self._do(f"cut {'none' if seed is None else seed}")

    def keep_data_of_renamed(self) -> None:
        """From now on behave as ext4: what replaces a file by renaming has its data when it has the name."""
        self._do("ext4")

    def ignore_syncs(self) -> None:
        """Do nothing on a sync from now on, but say that all is well."""
        self._do("ignore")
        self.ignores_syncs = True

    def delay_syncs(self, seconds: float) -> None:
        """Let each sync take so long from now on."""
        self._do(f"delay {seconds}")

    def fail(self, times: int) -> None:
        """Answer the next syncs with EIO, at most until a cut; what they should have written never reaches the disk."""
        self._do(f"fail {times}")

    def syncs(self) -> tuple[int, int]:
        """Return how many syncs there were, and how many of them failed."""
        done, failed = map(int, self._do("syncs").split())
        return done, failed

    def _do(self, line: str) -> str:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()
