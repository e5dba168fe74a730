"""Settings that every HTTP service has, declared once with the checks that need more than a type."""

from collections.abc import Sequence
from typing import Any

from runtime.http.addresses import ClientAddresses
from runtime.settings import setting


def cors_origins_setting() -> Any:
    """Declare `cors_origins`; check it with `runtime.http.cors.check_origins`."""
    return setting((), about="origins whose pages may call and connect; empty: the same origin only")


def trusted_proxies_setting() -> Any:
    """Declare `trusted_proxies`; check it with `check_proxies`."""
    return setting((), about="networks (CIDR) of the proxies whose X-Forwarded-For is trusted; empty: none")


def check_proxies(proxies: Sequence[str]) -> None:
    """Raise ValueError, naming variable and value, if one is not a network in CIDR notation."""
    try:
        ClientAddresses(proxies)
    except ValueError as error:
        raise ValueError(f"TRUSTED_PROXIES={','.join(proxies)!r}: {error}") from error
