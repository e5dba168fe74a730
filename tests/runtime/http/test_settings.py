"""Each address of another service is checked before the start, in every process that has one."""

from dataclasses import fields

import pytest

from alarms.settings import AlarmsSettings
from gateway.settings import GatewaySettings
from persister.settings import PersisterSettings
from reader.settings import ReaderSettings
from runtime.http.settings import is_http_url
from runtime.settings import ProcessSettings, SettingsError, from_env
from simulator.settings import SimulatorSettings

GOOD = {
    "BROKER_URL": "amqp://broker",
    "READINGS_URL": "mongodb://mongodb",
    "AUTH_DATABASE_URL": "sqlite+aiosqlite:////users",
    "ALARM_SECRET": "0123456789abcdef",
    "AUTH_URL": "http://auth:8001",
    "TARGET_URL": "https://telemetry.example.com/",
}
WITH_ADDRESSES = [AlarmsSettings, GatewaySettings, PersisterSettings, ReaderSettings, SimulatorSettings]


@pytest.mark.parametrize("settings", WITH_ADDRESSES)
def test_an_address_that_nothing_can_answer_at_stops_the_start(settings: type[ProcessSettings]) -> None:
    from_env(settings, GOOD)
    addresses = [item.name.upper() for item in fields(settings) if item.name.endswith("_url")]
    for variable in [name for name in addresses if name in {"AUTH_URL", "ALARMS_URL", "READER_URL", "TARGET_URL"}]:
        with pytest.raises(SettingsError, match=f"^{variable}='auth:8001': must have the form http://HOST:PORT"):
            from_env(settings, GOOD | {variable: "auth:8001"})


@pytest.mark.parametrize("url", ["http://auth", "https://auth:8001/", "http://[::1]:8001", "http://10.0.0.1/auth"])
def test_http_addresses(url: str) -> None:
    assert is_http_url(url)


@pytest.mark.parametrize(
    "url",
    [
        *("", "auth", "auth:8001", "//auth", "ftp://auth", "http://", "http://:8001"),
        *("http://a:b", "http://a:65536", "http://a:0", "http://a?b=c", "http://[::1"),
    ],
)
def test_what_is_no_http_address(url: str) -> None:
    assert not is_http_url(url)
