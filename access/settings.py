"""Settings of the services that verify tokens, declared once."""

from typing import Any

from runtime.settings import setting


def token_issuer_setting() -> Any:
    """Declare `token_issuer`."""
    return setting("", about="the `iss` that tokens must carry; empty: whatever AUTH_URL's keys sign")


def revocations_every_setting() -> Any:
    """Declare `revocations_every_seconds`."""
    return setting(2.0, about="how often auth is asked for revoked tokens")
