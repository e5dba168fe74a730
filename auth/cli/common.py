"""What the commands of operators share: the database and the audit log."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from auth.database import Database, open_database
from auth.errors import AuthError
from auth.migrate import require_schema
from auth.settings import DatabaseSettings
from runtime.logs import logger

# The same lines as those of the service's events, beside them in one log.
audit_log = logger("auth.audit")

# An operator waits longer than a client.
_TIMEOUT_S = 10.0


class RefusedError(AuthError):
    """What the operator asked for cannot be done; the message says why, in one line."""


@asynccontextmanager
async def operators_database(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """Open the database; SchemaError when it was not migrated, Problem 503 when it does not answer."""
    async with open_database(settings.auth_database_url, connections=1, timeout_s=_TIMEOUT_S) as database:
        await require_schema(database)
        yield database
