"""The secrets that sign webhooks, at rest: AES-256-GCM with a key that scrypt derives once from ALARM_SECRET.

Who can read the database, but not the environment, cannot sign. Sealed text is base64 of nonce (12 bytes), ciphertext
and tag, and opens for its owner only.
"""

import base64
import binascii
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

_NONCE_BYTES = 12
# One salt for all installations: the secret is theirs alone, and each sealed text has a nonce of its own.
_SALT = b"tidegate webhook secrets"
# 16 MiB and about 40 ms a guess (RFC 7914's N for interactive use); spent once, when the process starts.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**14, 8, 1


class SecretError(Exception):
    """A sealed secret cannot be opened: ALARM_SECRET is another one, or the row is damaged."""


class Secrets:
    """Seals and opens secrets with one ALARM_SECRET."""

    def __init__(self, alarm_secret: str) -> None:
        key = Scrypt(salt=_SALT, length=32, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P).derive(alarm_secret.encode())
        self._cipher = AESGCM(key)

    def seal(self, owner: str, secret: str) -> str:
        """Seal a secret of an owner."""
        nonce = os.urandom(_NONCE_BYTES)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, secret.encode(), owner.encode())).decode()

    def open(self, owner: str, sealed: str) -> str:
        """Open a sealed secret of an owner; SecretError."""
        try:
            raw = base64.b64decode(sealed, validate=True)
            return self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], owner.encode()).decode()
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise SecretError("a webhook's secret cannot be opened with this ALARM_SECRET") from error
