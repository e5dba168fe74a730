"""What the operators' commands share: the database and the audit log."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from auth.errors import AuthError
from auth.schema import require_schema
from auth.settings import DatabaseSettings
from database.connection import Database, open_database
from runtime.logs import logger

# The service's audit logger, so that all security events are in one log.
audit_log = logger("auth.audit")

# Operators wait longer than clients.
_TIMEOUT_S = 10.0


class RefusedError(AuthError):
    """The command cannot be carried out; the message says why, in one line."""


@asynccontextmanager
async def operators_database(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """Open the database; raise SchemaError if it was not migrated, Problem 503 if it does not answer."""
    async with open_database(settings.auth_database_url, connections=1, timeout_s=_TIMEOUT_S) as database:
        await require_schema(database)
        yield database
