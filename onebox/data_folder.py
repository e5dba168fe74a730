"""The data folder of a onebox: locked for one process, with the secrets that the first start generated."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec


class FolderInUse(Exception):
    """Another onebox uses this folder."""


class SecretsError(Exception):
    """The secrets file exists but cannot be decoded."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock `folder`, creating it (0700) if it is missing; raise FolderInUse if another onebox holds the lock.

    The kernel releases the lock when its process ends, however it ends.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise FolderInUse(
                f"{folder} is in use by another onebox (process {holder}); stop it, or choose another folder with "
                "--data"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


class Secrets(msgspec.Struct, frozen=True, rename="camel"):
    """The content of `secrets.json`. Never logged; only the demo password is shown, in the terminal."""

    signing_key_secret: str
    demo_password: str

    def __repr__(self) -> str:
        return "Secrets(hidden)"


def load_or_create_secrets(folder: Path) -> Secrets:
    """Load the secrets of this folder, or create them (0600); raise SecretsError if the file is damaged."""
    path = folder / "secrets.json"
    if path.exists():
        try:
            return msgspec.json.decode(path.read_bytes(), type=Secrets)
        except msgspec.MsgspecError as error:
            raise SecretsError(
                f"{path} is damaged ({error}); restore it, or choose another folder with --data"
            ) from error
    created = Secrets(secrets.token_urlsafe(32), secrets.token_hex(8))
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(created))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return created
