"""Mails notifications and codes in the name of EMAIL_FROM."""

from alarms.deliveries.store import Delivery
from alarms.mail.message import code_mail, notification
from alarms.mail.server import Sender, SmtpServer
from alarms.mail.smtp_client import MailFailedError, SmtpClient
from alarms.metrics import AlarmsMetrics
from database.ids import new_id
from runtime.times import now_ms


class Mailer:
    """Mails to the addresses that it is given: that they are confirmed, its callers know."""

    def __init__(self, server: SmtpServer, sender: Sender, metrics: AlarmsMetrics) -> None:
        self._client = SmtpClient(server, name=sender.domain)
        self._sender = sender
        self._metrics = metrics

    async def notify(self, delivery: Delivery, recipient: str, device_name: str | None) -> str:
        """Mail a notification; return the code of the server's reply, or raise MailFailedError."""
        mail = notification(delivery.id, delivery.body, self._sender, recipient, device_name=device_name)
        return await self._send(recipient, mail)

    async def send_code(self, recipient: str, code: str, valid_hours: int) -> None:
        """Mail a code that confirms the address; MailFailedError."""
        await self._send(recipient, code_mail(new_id(), now_ms(), self._sender, recipient, code, valid_hours))

    async def _send(self, recipient: str, mail: bytes) -> str:
        try:
            status = await self._client.send(self._sender.address, recipient, mail)
        except MailFailedError as error:
            self._metrics.emails.labels("refused" if error.is_final else "failed").inc()
            raise
        self._metrics.emails.labels("sent").inc()
        return status
