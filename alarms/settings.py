"""The settings of `alarms`."""

from dataclasses import dataclass
from ipaddress import ip_network
from typing import Annotated

from msgspec import Meta

from access.settings import revocations_every_setting, token_issuer_setting
from alarms.mail.server import parse_sender, parse_smtp_url
from broker.connect import check_url
from broker.settings import BROKER_URLS
from database.settings import check_database_url, database_url_setting
from runtime.http.cors import check_origins
from runtime.http.settings import check_http_url, check_proxies, cors_origins_setting, trusted_proxies_setting
from runtime.settings import Port, Positive, ProcessSettings, Seconds, ops_port_setting, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmsSettings(ProcessSettings):
    """The environment of `python -m alarms`."""

    auth_database_url: str = database_url_setting()
    broker_url: str = setting(about=f"for what was stored: {BROKER_URLS}", secret=True)
    auth_url: str = setting(about="where the auth service answers, for its keys and revocations; not the proxy")
    reader_url: str = setting(
        "", about="where a reader answers, for trials of rules; not the proxy; empty: rules cannot be tried"
    )
    alarm_secret: Annotated[str, Meta(min_length=16)] = setting(
        about="encrypts the secrets of webhooks in the database; 16 characters or more", secret=True
    )
    webhook_allowed_networks: tuple[str, ...] = setting(
        (), about="networks (CIDR) that webhooks may reach although they are not public, like 10.1.0.0/16"
    )
    smtp_url: str = setting(
        "",
        about="server that takes mail, `smtp://[USER:PASSWORD@]HOST[:PORT][?starttls=off]` or `smtps://…`: "
        "docs/alarms.md; empty: no e-mail",
        secret=True,
    )
    email_from: str = setting(
        "", about="sender of e-mail, like `Tidegate <alarms@example.org>`; required with `SMTP_URL`"
    )
    alarm_history_days: Positive = setting(90, about="how long changes of alarms and finished deliveries are kept")
    token_issuer: str = token_issuer_setting()
    host: str = setting("0.0.0.0", about="address of the HTTP interface")  # noqa: S104 - a container's own network
    port: Port = setting(8005, about="port of the HTTP interface; 0 takes any free one")
    ops_port: Port = ops_port_setting(9006)
    revocations_every_seconds: Seconds = revocations_every_setting()
    database_connections: Positive = setting(10, about="maximum number of connections to the database")
    database_timeout_seconds: Seconds = setting(2.5, about="maximum duration of a transaction")
    cors_origins: tuple[str, ...] = cors_origins_setting()
    trusted_proxies: tuple[str, ...] = trusted_proxies_setting()

    def __post_init__(self) -> None:
        """Check values whose format the types do not express."""
        check_database_url(self.auth_database_url)
        check_url(self.broker_url)
        check_http_url("AUTH_URL", self.auth_url)
        if self.reader_url:
            check_http_url("READER_URL", self.reader_url)
        check_origins(self.cors_origins)
        check_proxies(self.trusted_proxies)
        if self.smtp_url:
            parse_smtp_url(self.smtp_url)
            if not self.email_from:
                raise ValueError("EMAIL_FROM is not set: it is required with SMTP_URL")
        if self.email_from:
            parse_sender(self.email_from)
        for network in self.webhook_allowed_networks:
            try:
                ip_network(network)
            except ValueError as error:
                raise ValueError(f"WEBHOOK_ALLOWED_NETWORKS: {error}") from None
