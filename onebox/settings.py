"""The settings of the onebox itself; services.py reads those of its services."""

from dataclasses import dataclass
from typing import Literal

from runtime.http.cors import check_origins
from runtime.http.settings import cors_origins_setting
from runtime.settings import Port, ProcessSettings, Seconds, ops_port_setting, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class OneboxSettings(ProcessSettings):
    """The environment of `python -m onebox`."""

    log_level: Literal["debug", "info", "warning", "error"] = setting("warning", about="lowest level that is logged")
    ops_host: str = setting("127.0.0.1", about="address of health checks and metrics")
    ops_port: Port = ops_port_setting(0)
    cors_origins: tuple[str, ...] = cors_origins_setting()
    # A stop waits this long for accepted readings to be stored; the rest stays in the queue.
    drain_seconds: Seconds = setting(60.0, about="how long a stop may take before it is cut short")

    def __post_init__(self) -> None:
        """Check the form of the origins."""
        check_origins(self.cors_origins)
