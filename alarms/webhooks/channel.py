"""Notifications to webhooks, signed with the secrets of their rule."""

import time

from alarms.deliveries.channel import NotDeliveredError
from alarms.deliveries.store import Delivery
from alarms.webhooks.http_client import CallFailedError, WebhookClient
from alarms.webhooks.secrets import SecretError, Secrets
from alarms.webhooks.signature import headers
from runtime.logs import logger

log = logger("alarms")


class WebhookChannel:
    """Sends to webhooks."""

    def __init__(self, client: WebhookClient, secrets: Secrets) -> None:
        self._client = client
        self._secrets = secrets

    async def send(self, delivery: Delivery, sealed: tuple[str, ...]) -> str:
        """Call a webhook; return the status of its answer, or raise NotDeliveredError."""
        if not sealed:  # its rule was removed long ago
            raise NotDeliveredError("no_secret", is_final=True)
        body = delivery.body.encode()
        try:
            secrets = [self._secrets.open(delivery.owner, one) for one in sealed]
            signed = headers(delivery.id, int(time.time()), body, secrets)
            return str(await self._client.post(delivery.target, signed, body))
        except SecretError as error:
            log.error("A webhook cannot be signed.", error=str(error), rule=delivery.rule_id)
            raise NotDeliveredError("secret") from error
        except CallFailedError as error:
            after_s = error.retry_after_s
            raise NotDeliveredError(error.status, is_final=error.is_gone, retry_after_s=after_s) from error
