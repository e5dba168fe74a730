"""Owners who have confirmed their addresses."""

from typing import Any

from alarms.mail.codes import Codes
from alarms.mail.confirmations import Confirmations
from database.connection import Database

EMAIL: dict[str, Any] = {"notify": [{"kind": "email"}]}


async def confirmed(database: Database, *owners: str) -> Confirmations:
    """Confirm the addresses of owners; return the confirmations."""
    confirmations = Confirmations(database, Codes("a secret only for tests"))
    for owner in owners:
        _, code = await confirmations.new_code(owner)
        await confirmations.confirm(owner, code)
    return confirmations
