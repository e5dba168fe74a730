"""A token issuer for tests: it signs by hand, so it can also sign tokens that no library would."""

import base64
import json
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER = "https://auth.test"


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def b64_json(value: Any) -> str:
    return b64(json.dumps(value).encode())


class Issuer:
    """One Ed25519 key and its `kid`."""

    def __init__(self, kid: str = "key-1") -> None:
        self.kid = kid
        self.private = Ed25519PrivateKey.generate()

    @property
    def public_bytes(self) -> bytes:
        return self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def jwk(self) -> dict[str, Any]:
        return {"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": self.kid, "x": b64(self.public_bytes)}

    def jwks(self) -> dict[str, Any]:
        return {"keys": [self.jwk()]}

    def header(self, **changes: Any) -> dict[str, Any]:
        return {"alg": "EdDSA", "typ": "at+jwt", "kid": self.kid} | changes

    def sign(self, claims: Any, header: dict[str, Any] | None = None) -> str:
        signed = f"{b64_json(self.header() if header is None else header)}.{b64_json(claims)}"
        return f"{signed}.{b64(self.private.sign(signed.encode()))}"

    def user(self, **changes: Any) -> str:
        return self.sign(user_claims(**changes))

    def device(self, **changes: Any) -> str:
        return self.sign(device_claims(**changes))

    def api_key(self, **changes: Any) -> str:
        return self.sign(api_key_claims(**changes))


def user_claims(**changes: Any) -> dict[str, Any]:
    """Return a user's claims; a change of None removes the claim."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": "tidegate",
        "sub": "user-1",
        "iat": now,
        "exp": now + 3600,
        "jti": "jti-1",
        "owner": "user-1",
        "scope": "readings:write readings:read devices:manage",
        "sid": "family-1",
        "gen": 0,
    } | changes
    return {name: value for name, value in claims.items() if value is not None}


def device_claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a registered device; a change of None removes the claim."""
    changed = {"sub": "device-1", "sid": None, "device": "device-1", "scope": "readings:write"}
    return user_claims(**changed | {"sensorType": "temperature", "location": "roof"} | changes)


def api_key_claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a user's API key, of a year; a change of None removes the claim."""
    changed = {"sid": None, "jti": "api-key-1", "key": "api-key-1", "exp": int(time.time()) + 365 * 86400}
    return user_claims(**changed | changes)


def at_this_time(claims: dict[str, Any]) -> dict[str, Any]:
    """Replace claims that are functions by their result for the current time, in seconds since 1970."""
    now = int(time.time())
    return {name: claim(now) if callable(claim) else claim for name, claim in claims.items()}
