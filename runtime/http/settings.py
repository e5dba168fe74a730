"""Settings that every HTTP service has, declared once with the checks that need more than a type."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from runtime.http.addresses import ClientAddresses
from runtime.settings import setting


def cors_origins_setting() -> Any:
    """Declare `cors_origins`; check it with `runtime.http.cors.check_origins`."""
    return setting((), about="origins whose pages may call and connect; empty: the same origin only")


def trusted_proxies_setting() -> Any:
    """Declare `trusted_proxies`; check it with `check_proxies`."""
    return setting((), about="networks (CIDR) of the proxies whose X-Forwarded-For is trusted; empty: none")


def check_http_url(variable: str, url: str) -> None:
    """Raise ValueError, naming variable and value, unless paths can be appended to `url` and called over HTTP."""
    if not is_http_url(url):
        raise ValueError(f"{variable}={url!r}: must have the form http://HOST:PORT or https://HOST:PORT")


def is_http_url(url: str) -> bool:
    """Return whether `url` names a host, over http or https, and has no query."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not parts.query
    except ValueError:  # no number for a port, brackets around what is no address
        return False


def check_proxies(proxies: Sequence[str]) -> None:
    """Raise ValueError, naming variable and value, if one is not a network in CIDR notation."""
    try:
        ClientAddresses(proxies)
    except ValueError as error:
        raise ValueError(f"TRUSTED_PROXIES={','.join(proxies)!r}: {error}") from error
