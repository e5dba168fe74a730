"""A small disk for one server, so that it can be filled: a private tmpfs that disappears with its processes."""

import errno
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from testing.mounts import mount, private_mounts, unmount

DISK_BYTES = 1024**3
PIECE = b"\0" * (1 << 20)


class Disk:
    """A folder on a file system of its own, or an ordinary folder if mounting is not allowed."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._ballast = folder / "ballast"
        self.small = private_mounts()
        if self.small:
            try:
                mount("tmpfs", folder, f"size={size_bytes}")
            except PermissionError:
                self.small = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.small:
            unmount(self.folder)

    def fill(self) -> None:
        """Fill it completely."""
        with self._ballast.open("wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(PIECE)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def empty(self) -> None:
        """Free the space again."""
        with suppress(FileNotFoundError):
            self._ballast.unlink()
