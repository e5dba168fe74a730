"""Codes that confirm an address: 50 random bits, which a person can type, and what is stored of them."""

import hashlib
import hmac
import secrets

# Without letters and digits that look alike: 32 of them.
_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
CODE_CHARS = 10


class Codes:
    """Makes and checks codes with one ALARM_SECRET: without it, a stolen table tells no code."""

    def __init__(self, alarm_secret: str) -> None:
        self._key = hashlib.sha256(b"tidegate e-mail codes " + alarm_secret.encode()).digest()

    @staticmethod
    def new() -> str:
        """Return a new code."""
        return "".join(secrets.choice(_ALPHABET) for _ in range(CODE_CHARS))

    def hash(self, owner: str, address: str, code: str) -> str:
        """Return what is stored of a code, 64 characters: it counts for this owner and address only."""
        typed = "".join(code.split()).replace("-", "").upper()
        return hmac.new(self._key, "\n".join((owner, address, typed)).encode(), hashlib.sha256).hexdigest()
