"""Signatures of webhooks, as Standard Webhooks 1.0 has them (symmetric, `v1`).

Signed is `<webhook-id>.<webhook-timestamp>.<body>`, with HMAC-SHA256. While a secret is being replaced, the header has
one signature by each.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence

SECRET_PREFIX = "whsec_"  # noqa: S105 - names the kind of a secret
# The specification allows 24 to 64.
SECRET_BYTES = 32


def new_secret() -> str:
    """Return a new secret, as its owner gets to see it: `whsec_` and base64."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def headers(message_id: str, timestamp_s: int, body: bytes, signing: Sequence[str]) -> dict[str, str]:
    """Return the headers of a webhook, signed with each of the secrets; the time is in seconds since 1970."""
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(f"v1,{_signature(secret, signed)}" for secret in signing),
    }


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
