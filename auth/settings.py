"""The settings of `auth`, with every default."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from access.tokens import MAX_LIFETIME_S
from broker.connect import check_url
from broker.settings import BROKER_URLS
from runtime.http.cors import check_origins
from runtime.http.settings import check_proxies, cors_origins_setting, trusted_proxies_setting
from runtime.settings import Port, Positive, ProcessSettings, Seconds, ops_port_setting, setting

BcryptCost = Annotated[int, Meta(ge=4, le=16)]
TokenSeconds = Annotated[int, Meta(ge=1, le=MAX_LIFETIME_S)]

_SCHEMES = ("mysql+aiomysql://", "sqlite+aiosqlite:///")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings(ProcessSettings):
    """What `python -m auth migrate` needs: the database and nothing else."""

    auth_database_url: str = setting(
        about="users' database, `mysql+aiomysql://USER:PASSWORD@HOST/NAME` or `sqlite+aiosqlite:///PATH`", secret=True
    )

    def __post_init__(self) -> None:
        """Refuse drivers that nobody has tested; the URL holds a password and is never repeated."""
        if not self.auth_database_url.startswith(_SCHEMES):
            raise ValueError(f"AUTH_DATABASE_URL=(hidden): must begin with {' or '.join(_SCHEMES)}")
        try:
            make_url(self.auth_database_url)
        except (ArgumentError, ValueError):
            raise ValueError("AUTH_DATABASE_URL=(hidden): is no URL that can be read") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyListSettings(DatabaseSettings):
    """What `python -m auth keys list` and `retire` need: no secret."""

    signing_key_files: tuple[str, ...] = setting(
        (), about="PEM files of Ed25519 keys in place of the database's: the first signs, all verify"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings(KeyListSettings):
    """What `python -m auth keys rotate` needs."""

    signing_key_secret: Annotated[str, Meta(min_length=16)] = setting(
        "",
        about="encrypts the private signing keys in the database; at least 16 characters; or give SIGNING_KEY_FILES",
        secret=True,
        unless="SIGNING_KEY_FILES",
    )
    # As long as verifiers keep a key set: 30 s in jose, a minute in access/tokens.py.
    key_publish_seconds: Annotated[int, Meta(ge=0, le=86_400)] = setting(
        60, about="how long a new signing key is published before it signs; 0: not at all"
    )
    access_token_seconds: TokenSeconds = setting(3600, about="life of a user's access token")
    device_token_seconds: TokenSeconds = setting(30 * 86400, about="life of a device's token")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSettings(DatabaseSettings):
    """What `python -m auth users` needs. Lives tell how long a revocation matters: give what the service has."""

    access_token_seconds: TokenSeconds = setting(3600, about="life of a user's access token")
    device_token_seconds: TokenSeconds = setting(30 * 86400, about="life of a device's token")
    bcrypt_cost: BcryptCost = setting(12, about="log2 of bcrypt's rounds; 12 takes some 0.25 s")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnounceSettings(DatabaseSettings):
    """What `python -m auth users announce-deleted` needs: the database and the broker."""

    broker_url: str = setting(about="where deleted owners are announced: `amqp://…` or `embedded://PATH`", secret=True)

    def __post_init__(self) -> None:
        """Check both URLs."""
        DatabaseSettings.__post_init__(self)
        check_url(self.broker_url)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings(KeySettings):
    """What the service needs."""

    host: str = setting("0.0.0.0", about="address of the HTTP interface")  # noqa: S104 - a container's own network
    port: Port = setting(8001, about="port of the HTTP interface; 0 takes any free one")
    ops_port: Port = ops_port_setting(9001)
    token_issuer: Annotated[str, Meta(min_length=1)] = setting("tidegate", about="`iss` of every token")
    refresh_token_seconds: Positive = setting(30 * 86400, about="life of a refresh token")
    signup: Literal["open", "closed"] = setting("open", about="whether anyone may sign up")
    max_devices_per_owner: Positive = setting(10_000, about="how many devices one owner may register")
    bcrypt_cost: BcryptCost = setting(12, about="log2 of bcrypt's rounds; 12 takes some 0.25 s")
    hash_threads: Annotated[int, Meta(ge=0, le=256)] = setting(
        0, about="threads that hash passwords; 0 takes one a core"
    )
    hash_queue: Annotated[int, Meta(ge=0)] = setting(
        64, about="how many passwords may wait for a thread; beyond, log-ins get 503"
    )
    database_connections: Positive = setting(10, about="most connections to the database")
    # Below 3 s, so that a client knows within 3 s that the database hangs.
    database_timeout_seconds: Seconds = setting(2.5, about="longest that one transaction may take")
    # How many failures are forgiven, and how soon: auth/login_throttle.py says why.
    account_failures: Positive = setting(10, about="wrong passwords of an account, from one address, before a wait")
    account_failure_seconds: Seconds = setting(30.0, about="after which one of these is forgiven")
    account_failures_anywhere: Positive = setting(
        100, about="wrong passwords of an account, from anywhere, before a wait"
    )
    account_failure_anywhere_seconds: Seconds = setting(36.0, about="after which one of these is forgiven")
    address_failures: Positive = setting(30, about="wrong passwords of an address before a wait; refresh tokens apart")
    address_failure_seconds: Seconds = setting(2.0, about="after which one of these is forgiven")
    address_signups: Positive = setting(300, about="sign-ups of an address before a wait")
    address_signup_seconds: Seconds = setting(0.1, about="after which one of these is forgiven")
    broker_url: str = setting("", about=f"{BROKER_URLS}; empty: deleted owners wait", secret=True)
    cors_origins: tuple[str, ...] = cors_origins_setting()
    trusted_proxies: tuple[str, ...] = trusted_proxies_setting()

    def __post_init__(self) -> None:
        """Check what depends on more than one variable, or on a form."""
        DatabaseSettings.__post_init__(self)
        check_origins(self.cors_origins)
        if self.broker_url:
            check_url(self.broker_url)
        check_proxies(self.trusted_proxies)
