"""Mounts and networks of this process and its children alone (unshare(2)); they disappear with the last of them."""

import ctypes
import os
from pathlib import Path

CLONE_NEWNS, CLONE_NEWNET = 0x0002_0000, 0x4000_0000  # unshare(2)
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x4000, 0x4_0000  # mount(2)
MNT_DETACH = 2  # umount(2)
_libc = ctypes.CDLL(None, use_errno=True)


def private_mounts() -> bool:
    """Make mounts from here on private to this thread, and to what it starts; return whether that is permitted."""
    return bool(_libc.unshare(CLONE_NEWNS) == 0 and _libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) == 0)


def private_network() -> bool:
    """Give this thread, and what it starts, an empty network; return whether that is permitted."""
    return bool(_libc.unshare(CLONE_NEWNET) == 0)


def mount(kind: str, at: Path, options: str, flags: int = 0) -> None:
    """Mount a file system of this kind; raises OSError."""
    if _libc.mount(b"none", os.fsencode(at), kind.encode(), flags, options.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(at))


def mount_memory(folder: Path, size_bytes: int) -> bool:
    """Mount a tmpfs of this size; return whether that is permitted."""
    try:
        mount("tmpfs", folder, f"size={size_bytes}")
    except PermissionError:
        return False
    return True


def unmount(folder: Path) -> None:
    """Detach what is mounted here; processes that have files open there keep them."""
    _libc.umount2(os.fsencode(folder), MNT_DETACH)
