"""Signing keys from PEM files, for operators who manage secrets elsewhere: the first signs, all verify."""

from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from auth.tokens.keys import Keys, KeysError, base64url, thumbprint


def read_key_files(paths: Sequence[str]) -> Keys:
    """Read the keys; the first must be private (PKCS #8), later ones may be public. Raises KeysError with the path."""
    read = [_read(path) for path in paths]
    private_key = read[0]
    if not isinstance(private_key, Ed25519PrivateKey):
        raise KeysError(f"{paths[0]} must hold a private key: the first file's key signs.")
    public: dict[str, str] = {}
    for key in read:
        half = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
        x = base64url(half.public_bytes_raw())
        public[thumbprint(x)] = x
    return Keys(next(iter(public)), private_key, public)


def _read(path: str) -> Ed25519PrivateKey | Ed25519PublicKey:
    try:
        pem = Path(path).read_bytes()
        key = load_pem_public_key(pem) if b"PUBLIC KEY" in pem else load_pem_private_key(pem, None)
    except OSError as error:
        raise KeysError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeysError(f"{path} holds no usable key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey | Ed25519PublicKey):
        raise KeysError(f"{path} must hold an Ed25519 key.")
    return key
