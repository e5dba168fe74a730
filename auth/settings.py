"""The settings of `auth`, with every default."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from access.claims import MAX_LIFETIME_S
from broker.connect import check_url
from broker.settings import BROKER_URLS
from database.settings import check_database_url, database_url_setting
from runtime.http.cors import check_origins
from runtime.http.settings import check_proxies, cors_origins_setting, trusted_proxies_setting
from runtime.settings import Port, Positive, ProcessSettings, Seconds, ops_port_setting, setting

BcryptCost = Annotated[int, Meta(ge=4, le=16)]
TokenSeconds = Annotated[int, Meta(ge=1, le=MAX_LIFETIME_S)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings(ProcessSettings):
    """The settings of `python -m auth migrate`: the database only."""

    auth_database_url: str = database_url_setting()

    def __post_init__(self) -> None:
        """Check the URL."""
        check_database_url(self.auth_database_url)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyListSettings(DatabaseSettings):
    """The settings of `python -m auth keys list` and `retire`, which need no secret."""

    signing_key_files: tuple[str, ...] = setting(
        (), about="PEM files with Ed25519 keys, used instead of the database's: the first signs, all verify"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings(KeyListSettings):
    """The settings of `python -m auth keys rotate`."""

    signing_key_secret: Annotated[str, Meta(min_length=16)] = setting(
        "",
        about="encrypts the private signing keys in the database; 16 characters or more; unused with SIGNING_KEY_FILES",
        secret=True,
        unless="SIGNING_KEY_FILES",
    )
    # As long as verifiers cache a key set: 30 s in jose, a minute in access/tokens.py.
    key_publish_seconds: Annotated[int, Meta(ge=0, le=86_400)] = setting(
        60, about="how long a new signing key is published before it signs; 0: it signs at once"
    )
    access_token_seconds: TokenSeconds = setting(3600, about="lifetime of a user's access token")
    device_token_seconds: TokenSeconds = setting(30 * 86400, about="lifetime of a device's token")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings(KeySettings):
    """The settings of `python -m auth devices`: what tokens of devices, and their number, depend on."""

    token_issuer: Annotated[str, Meta(min_length=1)] = setting("tidegate", about="`iss` of every token")
    max_devices_per_owner: Positive = setting(10_000, about="how many devices one owner may register")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSettings(DatabaseSettings):
    """The settings of `python -m auth users`. Token lifetimes must be the service's: revocations last as long."""

    access_token_seconds: TokenSeconds = setting(3600, about="lifetime of a user's access token")
    device_token_seconds: TokenSeconds = setting(30 * 86400, about="lifetime of a device's token")
    bcrypt_cost: BcryptCost = setting(12, about="log2 of bcrypt's rounds; 12 takes about 0.25 s per password")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnounceSettings(DatabaseSettings):
    """The settings of `python -m auth users announce-deleted`: the database and the broker."""

    broker_url: str = setting(about="where deleted owners are announced: `amqp://…` or `embedded://PATH`", secret=True)

    def __post_init__(self) -> None:
        """Check both URLs."""
        DatabaseSettings.__post_init__(self)
        check_url(self.broker_url)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings(DeviceSettings):
    """The settings of the service."""

    host: str = setting("0.0.0.0", about="address of the HTTP interface")  # noqa: S104 - a container's own network
    port: Port = setting(8001, about="port of the HTTP interface; 0 takes any free one")
    ops_port: Port = ops_port_setting(9001)
    refresh_token_seconds: Positive = setting(30 * 86400, about="lifetime of a refresh token")
    signup: Literal["open", "closed"] = setting("open", about="whether anyone may sign up")
    bcrypt_cost: BcryptCost = setting(12, about="log2 of bcrypt's rounds; 12 takes about 0.25 s per password")
    hash_threads: Annotated[int, Meta(ge=0, le=256)] = setting(0, about="threads that hash passwords; 0: one per core")
    hash_queue: Annotated[int, Meta(ge=0)] = setting(
        64, about="passwords that may wait for a thread; beyond that, log-ins get 503"
    )
    database_connections: Positive = setting(10, about="maximum number of connections to the database")
    # Below 3 s, so that clients get a response within 3 s if the database hangs.
    database_timeout_seconds: Seconds = setting(2.5, about="maximum duration of a transaction")
    # How many failures are allowed, and how fast they are forgiven: auth/login_throttle.py explains them.
    account_failures: Positive = setting(
        10, about="wrong passwords for an account from one address before it has to wait"
    )
    account_failure_seconds: Seconds = setting(30.0, about="time after which one of these is forgiven")
    account_failures_anywhere: Positive = setting(
        100, about="wrong passwords for an account from all addresses before the next has to wait"
    )
    account_failure_anywhere_seconds: Seconds = setting(36.0, about="time after which one of these is forgiven")
    address_failures: Positive = setting(
        30, about="wrong passwords from an address before it has to wait; refresh tokens are counted separately"
    )
    address_failure_seconds: Seconds = setting(2.0, about="time after which one of these is forgiven")
    address_signups: Positive = setting(300, about="sign-ups from an address before it has to wait")
    address_signup_seconds: Seconds = setting(0.1, about="time after which one of these is forgiven")
    address_claims: Positive = setting(
        2_000, about="claims of devices from an address before the next has to wait; auth/claim_throttle.py"
    )
    address_claim_seconds: Seconds = setting(0.05, about="time after which one of these is forgiven")
    provisioning_key_claims: Positive = setting(
        2_000, about="claims with a provisioning key before the next has to wait"
    )
    provisioning_key_claim_seconds: Seconds = setting(0.02, about="time after which one of these is forgiven")
    command_history_seconds: Positive = setting(
        7 * 86400, about="how long finished and expired commands are listed; at most 1,000 of a device"
    )
    broker_url: str = setting(
        "", about=f"{BROKER_URLS}; empty: deleted owners wait, and no commands are sent", secret=True
    )
    cors_origins: tuple[str, ...] = cors_origins_setting()
    trusted_proxies: tuple[str, ...] = trusted_proxies_setting()

    def __post_init__(self) -> None:
        """Check values whose format the types do not express."""
        DatabaseSettings.__post_init__(self)
        check_origins(self.cors_origins)
        if self.broker_url:
            check_url(self.broker_url)
        check_proxies(self.trusted_proxies)
