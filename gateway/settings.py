"""The settings of a gateway."""

from dataclasses import dataclass

from access.settings import revocations_every_setting, token_issuer_setting
from broker.connect import check_url
from broker.settings import BROKER_URLS
from runtime.http.cors import check_origins
from runtime.http.settings import check_http_url, check_proxies, cors_origins_setting, trusted_proxies_setting
from runtime.settings import NotNegative, Port, Positive, ProcessSettings, Seconds, ops_port_setting, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings(ProcessSettings):
    """The environment of `python -m gateway`."""

    broker_url: str = setting(about=BROKER_URLS, secret=True)
    auth_url: str = setting(about="where the auth service answers, for its keys and revocations; not the proxy")
    token_issuer: str = token_issuer_setting()
    host: str = setting("0.0.0.0", about="address that devices reach")  # noqa: S104 - devices come from outside
    port: Port = setting(8002, about="port that devices reach")
    ops_port: Port = ops_port_setting(9002)
    cors_origins: tuple[str, ...] = cors_origins_setting()
    trusted_proxies: tuple[str, ...] = trusted_proxies_setting()
    revocations_every_seconds: Seconds = revocations_every_setting()
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
    publish_slots: Positive = setting(4, about="unconfirmed messages of live readings at once; of late ones it is one")
    max_waiting_bytes: Positive = setting(
        64 * 1024 * 1024, about="size of unconfirmed readings, late ones counted apart; beyond it, `busy`"
    )
    backfill_after_seconds: NotNegative = setting(
        900, about="age by its own `ts` beyond which a reading is late and takes the backfill lane; 0: none is"
    )
    confirm_timeout_seconds: Seconds = setting(4.0, about="how long a confirm may take; beyond it, `unavailable`")

    def __post_init__(self) -> None:
        """Check the URLs, origins and networks."""
        check_url(self.broker_url)
        check_http_url("AUTH_URL", self.auth_url)
        check_origins(self.cors_origins)
        check_proxies(self.trusted_proxies)
