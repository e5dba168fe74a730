"""Notifications by e-mail: to the address of the account, if its owner has confirmed it and it is still that one."""

from alarms.deliveries.channel import NotDeliveredError
from alarms.deliveries.store import Delivery
from alarms.mail.confirmations import Confirmations
from alarms.mail.mailer import Mailer
from alarms.mail.message import device_in
from alarms.mail.smtp_client import MailFailedError


class EmailChannel:
    """Sends e-mail; without a mailer, as SMTP_URL is not set, every notification is given up."""

    def __init__(self, mailer: Mailer | None, confirmations: Confirmations) -> None:
        self._mailer = mailer
        self._confirmations = confirmations

    async def send(self, delivery: Delivery, sealed: tuple[str, ...]) -> str:
        """Mail a notification; return the code of the server's reply, or raise NotDeliveredError."""
        if self._mailer is None:
            raise NotDeliveredError("email_off", is_final=True)
        address = await self._confirmations.confirmed_address(delivery.owner)
        if address is None or address != delivery.target:
            raise NotDeliveredError("email_unconfirmed", is_final=True)
        device = device_in(delivery.body)
        name = None if device is None else await self._confirmations.device_name(delivery.owner, device)
        try:
            return await self._mailer.notify(delivery, address, name)
        except MailFailedError as error:
            raise NotDeliveredError(error.status, is_final=error.is_final) from error
