"""What a onebox takes from the environment for itself, where it differs from what its services take (services.py)."""

from dataclasses import dataclass
from typing import Literal

from runtime.http.cors import check_origins
from runtime.settings import Port, ProcessSettings, Seconds, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class OneboxSettings(ProcessSettings):
    """The environment of `python -m onebox`."""

    log_level: Literal["debug", "info", "warning", "error"] = setting("warning", about="least severity that is logged")
    ops_host: str = setting("127.0.0.1", about="address of health and metrics")
    ops_port: Port = setting(0, about="port of `/healthz`, `/readyz`, `/metrics`; 0 takes any free one")
    cors_origins: tuple[str, ...] = setting(
        (), about="origins of browsers that may call and connect; empty: the same origin only"
    )
    # A stop by hand waits this long for what was accepted to be stored; the rest stays in the queue.
    drain_seconds: Seconds = setting(60.0, about="how long a stop may take before it is cut short")

    def __post_init__(self) -> None:
        """Check what depends on a form."""
        check_origins(self.cors_origins)
