"""The secrets that a onebox makes for itself at its first start, kept in a file that only its user can read."""

import os
import secrets
from pathlib import Path

import msgspec


class KeptSecrets(msgspec.Struct, frozen=True, rename="camel"):
    """What `secrets.json` holds. Never logged; the demo password is shown to the person at the terminal."""

    signing_key_secret: str
    demo_password: str

    def __repr__(self) -> str:
        return "KeptSecrets(hidden)"


class SecretsError(Exception):
    """The file is there and cannot be read as what this program wrote."""


def kept_secrets(folder: Path) -> KeptSecrets:
    """Read the secrets of this folder, or make them; SecretsError when the file is damaged."""
    path = folder / "secrets.json"
    if path.exists():
        try:
            return msgspec.json.decode(path.read_bytes(), type=KeptSecrets)
        except msgspec.MsgspecError as error:
            raise SecretsError(
                f"{path} is damaged ({error}); restore it, or take another folder with --data"
            ) from error
    made = KeptSecrets(secrets.token_urlsafe(32), secrets.token_hex(8))
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(made))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return made
