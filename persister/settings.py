"""The persister's settings."""

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from broker.connect import check_url
from broker.settings import BROKER_URLS
from persister.maintenance.retention import Retention
from readings.settings import check_readings_settings, readings_database_setting
from runtime.http.settings import check_http_url
from runtime.settings import NotNegative, Port, Positive, ProcessSettings, Seconds, ops_port_setting, setting

Cores = Annotated[float, msgspec.Meta(gt=0, le=64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingsSettings(ProcessSettings):
    """The settings of `python -m persister erase`: the database only."""

    readings_url: str = setting(about="`mongodb://…`; read from the primary only", secret=True)
    readings_database: str = readings_database_setting()

    def __post_init__(self) -> None:
        check_readings_settings(self.readings_url, self.readings_database)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactSettings(ReadingsSettings):
    """The environment of `python -m persister compact` and `unseal`."""

    ops_port: Port = ops_port_setting(9008)
    readings_clustered: bool = setting(False, about="create the collection clustered by its key")
    compact_cores: Cores = setting(
        0.5, about="processor cores that compaction takes at most on average, those of MongoDB for it included"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PersisterSettings(ReadingsSettings):
    """The environment of `python -m persister`."""

    broker_url: str = setting(about=BROKER_URLS, secret=True)
    readings_clustered: bool = setting(False, about="create the collection clustered by its key")
    ops_port: Port = ops_port_setting(9003)
    batch_readings: Positive = setting(4000, about="the most readings in one write")
    linger_ms: NotNegative = setting(50, about="how long a batch that is not full waits for more")
    writes_in_flight: Positive = setting(2, about="the most batches written at the same time")
    prefetch: Positive = setting(64, about="the most unsettled messages, of up to 1 MiB each")
    known_series: Positive = setting(100_000, about="series remembered as checked, about 200 bytes each")
    write_timeout_seconds: Seconds = setting(15.0, about="how long one write may take before it is retried")

    hold_seconds: Seconds = setting(
        900.0, about="how long a message may be held before it is requeued; half of the broker's consumer time-out"
    )
    stuck_seconds: Seconds = setting(
        60.0, about="the process ends after this long without a delivery while messages wait"
    )

    alarms_url: str = setting(
        "", about="where the alarms service answers, for what rules watch; empty: nothing is announced to it"
    )

    sealing: Literal["on", "off"] = setting(
        "on", about="whether `readings` is sealed: renamed, for the compactor, and begun again"
    )
    seal_readings: Positive = setting(5_000_000, about="the number of readings at which `readings` is sealed")
    seal_seconds: Seconds = setting(3600.0, about="the age at which `readings` is sealed, unless it is empty")

    retention_days: NotNegative = setting(0, about="days for which readings are kept; 0: without limit")
    retention_days_by_sensor_type: tuple[str, ...] = setting(
        (), about="other days for some sensorTypes, `temperature=30,door=0`; 0: without limit"
    )

    def __post_init__(self) -> None:
        self.retention()
        check_url(self.broker_url)
        if self.alarms_url:
            check_http_url("ALARMS_URL", self.alarms_url)
        ReadingsSettings.__post_init__(self)

    def retention(self) -> Retention:
        """Return how long readings are kept; ValueError if the settings are invalid."""
        return Retention.of(self.retention_days, self.retention_days_by_sensor_type)
