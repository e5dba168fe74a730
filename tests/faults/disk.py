"""A small disk for one server, so that it can be filled: a private tmpfs that disappears with its processes."""

import ctypes
import errno
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

CLONE_NEWNS = 0x0002_0000  # unshare(2)
MS_REC, MS_PRIVATE = 0x4000, 0x4_0000  # mount(2)
MNT_DETACH = 2  # umount(2)
DISK_BYTES = 1024**3
PIECE = b"\0" * (1 << 20)


class Disk:
    """A folder on a file system of its own, or an ordinary folder if mounting is not allowed."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._ballast = folder / "ballast"
        self._libc = libc = ctypes.CDLL(None)
        # From here on mounts are private to this process and its children, and disappear with the last of them.
        self.small = (
            libc.unshare(CLONE_NEWNS) == 0
            and libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) == 0
            and libc.mount(b"none", os.fsencode(folder), b"tmpfs", 0, f"size={size_bytes}".encode()) == 0
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.small:
            self._libc.umount2(os.fsencode(self.folder), MNT_DETACH)

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
