"""The settings of `python -m simulator serve`."""

from dataclasses import dataclass

from runtime.http.settings import check_http_url
from runtime.settings import Port, Positive, ProcessSettings, ops_port_setting, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorSettings(ProcessSettings):
    """The environment of `python -m simulator serve`."""

    target_url: str = setting(about="where Tidegate answers: devices are registered and send there")
    host: str = setting("0.0.0.0", about="address that users reach")  # noqa: S104 - users come from outside
    port: Port = setting(8004, about="port that users reach; 0 takes any free one")
    ops_port: Port = ops_port_setting(9004)
    max_devices: Positive = setting(1000, about="devices that may run at once, of all users; beyond it, 503")
    max_devices_per_user: Positive = setting(100, about="of one user; beyond it, 429")

    def __post_init__(self) -> None:
        check_http_url("TARGET_URL", self.target_url)
