"""The settings of the reader."""

from dataclasses import dataclass

from access.settings import revocations_every_setting, token_issuer_setting
from broker.connect import check_url
from broker.settings import BROKER_URLS
from readings.settings import check_readings_settings, readings_database_setting
from runtime.http.cors import check_origins
from runtime.http.settings import check_http_url, cors_origins_setting
from runtime.settings import Port, Positive, ProcessSettings, Seconds, ops_port_setting, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderSettings(ProcessSettings):
    """The environment of `python -m reader`."""

    broker_url: str = setting(about=f"for what is live: {BROKER_URLS}", secret=True)
    readings_url: str = setting(
        about="`mongodb://…`; a user that may read is enough; read from the primary only", secret=True
    )
    readings_database: str = readings_database_setting()
    auth_url: str = setting(
        about="where the auth service answers, for its keys, revocations and names of devices; not the proxy"
    )
    token_issuer: str = token_issuer_setting()
    host: str = setting("0.0.0.0", about="address that people reach")  # noqa: S104 - they come from outside
    port: Port = setting(8003, about="port that people reach; 0 takes any free one")
    cors_origins: tuple[str, ...] = cors_origins_setting()
    ops_port: Port = ops_port_setting(9005)
    revocations_every_seconds: Seconds = revocations_every_setting()
    query_timeout_seconds: Seconds = setting(10.0, about="how long one question to MongoDB may take")
    max_queries: Positive = setting(
        512, about="requests for history that are answered at once; as many more wait up to 2 s; beyond it, 503"
    )
    max_queries_per_owner: Positive = setting(64, about="of one owner; as many more wait up to 2 s; beyond it, 429")
    max_exports: Positive = setting(
        128, about="CSV, NDJSON and Parquet streams at once; with the same wait; beyond it, 503"
    )
    max_exports_per_owner: Positive = setting(32, about="of one owner; with the same wait; beyond it, 429")
    max_live_per_owner: Positive = setting(1000, about="live feeds of one owner at once; beyond it, 429")
    max_live: Positive = setting(10_000, about="live feeds at once; beyond it, 503")
    heartbeat_seconds: Seconds = setting(10.0, about="how often a live feed shows that it lives")
    unread_timeout_seconds: Seconds = setting(10.0, about="how long a browser may not read; beyond it, it is dropped")

    def __post_init__(self) -> None:
        """Check the URLs and origins."""
        check_url(self.broker_url)
        check_http_url("AUTH_URL", self.auth_url)
        check_origins(self.cors_origins)
        check_readings_settings(self.readings_url, self.readings_database)
