"""Mounts of this process and its children only; they disappear with the last of these processes."""

import ctypes
import os
from pathlib import Path

CLONE_NEWNS = 0x0002_0000  # unshare(2)
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x4000, 0x4_0000  # mount(2)
MNT_DETACH = 2  # umount(2)

_LIBC = ctypes.CDLL(None, use_errno=True)


def private_mounts() -> bool:
    """Give the calling thread, and what it starts from now on, mounts of their own; False if that is not permitted."""
    return bool(_LIBC.unshare(CLONE_NEWNS) == 0 and _LIBC.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) == 0)


def mount(kind: str, at: Path, options: str, flags: int = 0) -> None:
    """Mount a file system of this kind; raises OSError."""
    if _LIBC.mount(b"none", os.fsencode(at), kind.encode(), flags, options.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(at))


def unmount(at: Path) -> None:
    """Detach what is mounted here; processes that have files open there keep them."""
    _LIBC.umount2(os.fsencode(at), MNT_DETACH)
