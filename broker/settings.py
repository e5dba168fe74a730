"""Settings of `python -m broker`."""

from dataclasses import dataclass

from broker.connect import check_url
from runtime.settings import setting


@dataclass(frozen=True)
class BrokerSettings:
    """Read from the environment."""

    broker_url: str = setting(about="`amqp://…`, one host or several, or `embedded://PATH`", secret=True)

    def __post_init__(self) -> None:
        check_url(self.broker_url)
