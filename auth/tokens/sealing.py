"""Private keys at rest: AES-256-GCM under a key that scrypt derives from SIGNING_KEY_SECRET.

Whoever reads the database but not the environment can sign nothing. scrypt, not HKDF: operators choose secrets by hand,
and a guess should cost more than a hash. Sealed text is base64 of salt (16 bytes), nonce (12), ciphertext and tag.
"""

import base64
import binascii
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

_SALT_BYTES = 16
_NONCE_BYTES = 12
# 16 MiB and some 40 ms a guess (RFC 7914's N for interactive use); paid in a thread, once a key.
_SCRYPT_N = 2**14
_SCRYPT_R = 8
_SCRYPT_P = 1


class SealError(Exception):
    """What was sealed cannot be opened: another secret, another name, or damage."""


def seal(secret: str, name: str, plain: bytes) -> str:
    """Encrypt `plain`. It opens under the same `name` only, so rows cannot be exchanged."""
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    sealed = AESGCM(_derive(secret, salt)).encrypt(nonce, plain, name.encode())
    return base64.b64encode(salt + nonce + sealed).decode()


def unseal(secret: str, name: str, sealed: str) -> bytes:
    """Return what was sealed; SealError when it cannot be opened."""
    try:
        raw = base64.b64decode(sealed, validate=True)
        salt, nonce = raw[:_SALT_BYTES], raw[_SALT_BYTES : _SALT_BYTES + _NONCE_BYTES]
        return AESGCM(_derive(secret, salt)).decrypt(nonce, raw[_SALT_BYTES + _NONCE_BYTES :], name.encode())
    except (InvalidTag, binascii.Error, ValueError) as error:
        raise SealError(f"{name} cannot be opened with this secret") from error


def _derive(secret: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P).derive(secret.encode())
