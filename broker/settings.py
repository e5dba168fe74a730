"""The settings of `python -m broker`, and the text on BROKER_URL that the services share."""

from dataclasses import dataclass

from broker.connect import check_url
from runtime.settings import setting

BROKER_URLS = "`amqp://…`, one host or several, or `embedded://PATH`"


@dataclass(frozen=True)
class BrokerSettings:
    """Read from the environment."""

    broker_url: str = setting(about=BROKER_URLS, secret=True)

    def __post_init__(self) -> None:
        check_url(self.broker_url)
