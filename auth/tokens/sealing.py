"""Encryption of private keys at rest: AES-256-GCM with a key that scrypt derives from SIGNING_KEY_SECRET.

An attacker who can read the database but not the environment cannot sign tokens. scrypt rather than HKDF: operators
choose secrets by hand, and a guess should cost more than a hash. Sealed text is base64 of salt (16 bytes), nonce (12),
ciphertext and tag.
"""

import base64
import binascii
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

_SALT_BYTES = 16
_NONCE_BYTES = 12
# 16 MiB and about 40 ms per guess (RFC 7914's N for interactive use); spent in a thread, once per key.
_SCRYPT_N = 2**14
_SCRYPT_R = 8
_SCRYPT_P = 1


class SealError(Exception):
    """Sealed text cannot be decrypted: wrong secret, wrong name, or damaged."""


def seal(secret: str, name: str, plain: bytes) -> str:
    """Encrypt `plain`. It decrypts under the same `name` only, so that rows cannot be swapped."""
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    sealed = AESGCM(_derive(secret, salt)).encrypt(nonce, plain, name.encode())
    return base64.b64encode(salt + nonce + sealed).decode()


def unseal(secret: str, name: str, sealed: str) -> bytes:
    """Decrypt sealed text; raise SealError if that is not possible."""
    try:
        raw = base64.b64decode(sealed, validate=True)
        salt, nonce = raw[:_SALT_BYTES], raw[_SALT_BYTES : _SALT_BYTES + _NONCE_BYTES]
        return AESGCM(_derive(secret, salt)).decrypt(nonce, raw[_SALT_BYTES + _NONCE_BYTES :], name.encode())
    except (InvalidTag, binascii.Error, ValueError) as error:
        raise SealError(f"{name} cannot be opened with this secret") from error


def _derive(secret: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P).derive(secret.encode())
