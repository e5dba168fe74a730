"""The settings of a gateway."""

from dataclasses import dataclass

from broker.connect import check_url
from runtime.http.addresses import ClientAddresses
from runtime.http.cors import check_origins
from runtime.settings import Port, Positive, ProcessSettings, Seconds, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings(ProcessSettings):
    """The environment of `python -m gateway`."""

    broker_url: str = setting(about="`amqp://…`, one host or several, or `embedded://PATH`", secret=True)
    auth_url: str = setting(about="where the auth service answers, for its keys and revocations; not the proxy")
    token_issuer: str = setting("", about="the `iss` that tokens must carry; empty: whatever AUTH_URL's keys sign")
    host: str = setting("0.0.0.0", about="address that devices reach")  # noqa: S104 - devices come from outside
    port: Port = setting(8002, about="port that devices reach")
    ops_port: Port = setting(9002, about="port of `/healthz`, `/readyz`, `/metrics`; 0 takes any free one")
    cors_origins: tuple[str, ...] = setting(
        (), about="origins of browsers that may call and connect; empty: the same origin only"
    )
    trusted_proxies: tuple[str, ...] = setting(
        (), about="networks (CIDR) of the proxies whose X-Forwarded-For is believed; empty: of none"
    )
    revocations_every_seconds: Seconds = setting(2.0, about="how often auth is asked for revoked tokens")
    expiring_seconds: Seconds = setting(60.0, about="how long before a token's end its device is warned")
    max_connections: Positive = setting(100_000, about="sockets of this gateway; beyond it, `busy`")
    max_connections_per_device: Positive = setting(100, about="connections of one device; beyond it, `rate_limited`")
    max_connections_per_owner: Positive = setting(100_000, about="connections of one owner; beyond it, `rate_limited`")
    max_connections_per_address: Positive = setting(
        10_000, about="sockets and requests of one address (IPv6: /64); beyond it, `rate_limited`"
    )
    max_series_per_owner: Positive = setting(100_000, about="device ids that one owner may use; beyond it, `forbidden`")
    max_sensor_types_per_owner: Positive = setting(
        10_000, about="sensorTypes that one owner may use; a reading of one more is rejected, `forbidden`"
    )
    device_readings_per_second: Positive = setting(20_000, about="of one device; beyond it, `rate_limited`")
    device_readings_per_minute: Positive = setting(1_200_000, about="of one device")
    device_bytes_per_second: Positive = setting(16 * 1024 * 1024, about="of one device's events")
    device_bytes_per_minute: Positive = setting(960 * 1024 * 1024, about="of one device's events")
    owner_readings_per_second: Positive = setting(500_000, about="of one owner; beyond it, `rate_limited`")
    owner_readings_per_minute: Positive = setting(30_000_000, about="of one owner")
    owner_bytes_per_second: Positive = setting(256 * 1024 * 1024, about="of one owner's events")
    owner_bytes_per_minute: Positive = setting(15 * 1024**3, about="of one owner's events")
    max_event_bytes: Positive = setting(1024 * 1024, about="size of one event; beyond it, `too_large`")
    max_frame_bytes: Positive = setting(4 * 1024 * 1024, about="size of one WebSocket frame; beyond it, close 1009")
    fast_lane: bool = setting(True, about="`false`: every event takes the plain path through python-socketio")
    # The same as the official server's `connectTimeout`: clients open the socket first and fetch their token then.
    connect_timeout_seconds: Seconds = setting(
        45.0, about="how long a socket may take to send its CONNECT; beyond it, close 1013"
    )
    ping_interval_seconds: Seconds = setting(25.0, about="how often a device is pinged")
    ping_timeout_seconds: Seconds = setting(
        20.0, about="how long its pong may take; beyond it, the connection is aborted"
    )
    max_in_flight_events: Positive = setting(1000, about="unconfirmed events of a device; beyond it, `busy`")
    max_in_flight_bytes: Positive = setting(8 * 1024 * 1024, about="size of these events; beyond it, `busy`")
    max_unread_bytes: Positive = setting(
        1024 * 1024, about="output that a client has not read; beyond it, the connection is aborted"
    )
    unread_timeout_seconds: Seconds = setting(
        10.0, about="how long a client may leave output unread; beyond it, the connection is aborted"
    )
    publish_slots: Positive = setting(4, about="unconfirmed messages at once")
    max_waiting_bytes: Positive = setting(64 * 1024 * 1024, about="size of unconfirmed readings; beyond it, `busy`")
    confirm_timeout_seconds: Seconds = setting(4.0, about="how long a confirm may take; beyond it, `unavailable`")

    def __post_init__(self) -> None:
        """Check what depends on a form."""
        check_url(self.broker_url)
        check_origins(self.cors_origins)
        try:
            ClientAddresses(self.trusted_proxies)
        except ValueError as error:
            raise ValueError(f"TRUSTED_PROXIES={','.join(self.trusted_proxies)!r}: {error}") from error
