"""The users' database: transactions within a deadline, on MySQL, MariaDB or SQLite.

A caller always gets an answer in time: a server that is down, hangs or is too busy becomes Problem 503 with
Retry-After. Whether an unfinished write was committed is then unknown; unique keys make it safe to retry.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from typing import Any

from sqlalchemy import BigInteger, event, select, text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.functions import FunctionElement

from runtime.http.problems import Problem
from runtime.logs import logger

log = logger("database")

RETRY_AFTER_S = 2
# MySQL drops idle connections after 8 h, firewalls and proxies after minutes.
_RECYCLE_S = 300
# A hung server must not delay the shutdown.
_CLOSE_S = 1.0
# An execution option, read when a transaction begins in SQLite. There, a reader that becomes a writer fails while
# another one writes; so write transactions take the write lock when they begin.
_SQLITE_BEGIN = "sqlite_begin"
BEGIN_TO_WRITE = {_SQLITE_BEGIN: "BEGIN IMMEDIATE"}


class database_now_ms(FunctionElement[int]):  # noqa: N801 - written in queries like the functions of SQLAlchemy
    """The database server's time in milliseconds since 1970: one clock for all replicas and operators.

    SQLite has no server; there it is the time of this host.
    """

    type = BigInteger()
    inherit_cache = True
    name = "database_now_ms"


@compiles(database_now_ms, "mysql")
@compiles(database_now_ms, "mariadb")
def _now_in_mysql(*_: Any, **__: Any) -> str:
    return "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000)"


@compiles(database_now_ms, "sqlite")
def _now_in_sqlite(*_: Any, **__: Any) -> str:
    # A Julian day is a double: exact to 0.05 ms.
    return "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"


class Database:
    """A pool of connections, used through `connect` (reads) and `begin` (write transactions) only."""

    def __init__(self, engine: AsyncEngine, timeout_s: float) -> None:
        self._engine = engine
        # SQLite has one writer at a time; the others poll for the lock and may starve. Here they queue.
        is_sqlite = engine.dialect.name == "sqlite"
        self._write_lock: AbstractAsyncContextManager[Any] = asyncio.Lock() if is_sqlite else nullcontext()
        self._writer = engine.execution_options(**BEGIN_TO_WRITE)
        self._timeout_s = timeout_s
        self._down = False
        # When it last failed and last answered. The result of a transaction begun before the other event is outdated.
        self._failed_at = self._answered_at = float("-inf")

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection for reads; raise Problem 503 if the database does not answer in time."""
        async with self._within_deadline(), self._engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection in a transaction, committed at the end or rolled back; raise Problem 503 as `connect`."""
        async with self._within_deadline(), self._write_lock, self._writer.begin() as connection:
            yield connection

    async def check(self) -> None:
        """Raise Problem 503 if the database does not answer: for `/readyz`."""
        async with self.connect() as connection:
            await connection.execute(text("SELECT 1"))

    @asynccontextmanager
    async def _within_deadline(self) -> AsyncIterator[None]:
        started_at = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except (TimeoutError, NoFreeConnection) as error:
            raise self._unavailable(started_at, f"no answer within {self._timeout_s:g} s") from error
        except (OperationalError, InterfaceError) as error:
            raise self._unavailable(started_at, str(error.orig)) from error
        self._answered_at = time.monotonic()
        if self._down and started_at > self._failed_at:
            self._down = False
            log.info("The database answers again.")

    def _unavailable(self, started_at: float, why: str) -> Problem:
        self._failed_at = time.monotonic()
        if not self._down and started_at > self._answered_at:  # logged once, not by every request of an outage
            self._down = True
            log.warning("The database does not answer.", why=why)
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        return Problem(503, "The users' database does not answer; try again.", code="unavailable", headers=headers)


async def server_time_ms(connection: AsyncConnection) -> int:
    """Return `database_now_ms`, for use outside a query."""
    return int(await connection.scalar(select(database_now_ms())) or 0)


@asynccontextmanager
async def open_database(url: str, *, connections: int, timeout_s: float) -> AsyncIterator[Database]:
    """Open the database at `url`; the first connection is made with the first transaction."""
    async with open_engine(url, connections=connections, wait_timeout_s=timeout_s) as engine:
        yield Database(engine, timeout_s)


@asynccontextmanager
async def open_engine(url: str, *, connections: int, wait_timeout_s: float) -> AsyncIterator[AsyncEngine]:
    """Create the engine for `url`; `wait_timeout_s` bounds the wait for a connection and, in SQLite, for a lock."""
    options: dict[str, Any] = {
        "pool_size": connections,
        "max_overflow": 0,
        "pool_timeout": wait_timeout_s,
        "hide_parameters": True,  # an error's text must not carry e-mails and hashes into the log
    }
    if url.startswith("sqlite"):
        engine = create_async_engine(url, **options)
        _prepare_sqlite(engine, wait_timeout_s)
    else:
        engine = create_async_engine(
            url,
            **options,
            pool_pre_ping=True,
            pool_recycle=_RECYCLE_S,
            # Fewer locks than MySQL's REPEATABLE READ, and reads after a lock are up to date.
            isolation_level="READ COMMITTED",
            # TRADITIONAL: MySQL refuses values that do not fit, whatever the server's mode, instead of truncating them.
            connect_args={"charset": "utf8mb4", "sql_mode": "TRADITIONAL"},
        )
    with _silencing_lost_connections(engine):
        try:
            yield engine
        finally:
            await _close(engine)


@contextmanager
def _silencing_lost_connections(engine: AsyncEngine) -> Iterator[None]:
    """Keep the pool from logging a traceback for each connection to a lost server that it cannot reset.

    `Database` logs an outage once, with its reason.
    """
    # uvloop's RuntimeError: "unable to perform operation on <TCPTransport closed=True …>".
    lost = (engine.dialect.loaded_dbapi.Error, OSError, RuntimeError, asyncio.CancelledError)

    def is_worth_logging(record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], lost))

    pool = logging.getLogger(f"{type(engine.pool).__module__}.{type(engine.pool).__name__}")
    pool.addFilter(is_worth_logging)
    try:
        yield
    finally:
        pool.removeFilter(is_worth_logging)


async def _close(engine: AsyncEngine) -> None:
    try:
        async with asyncio.timeout(_CLOSE_S):
            await engine.dispose()
    except TimeoutError:
        log.warning("The database did not close its connections in time.", seconds=_CLOSE_S)


def _prepare_sqlite(engine: AsyncEngine, busy_s: float) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver must not begin transactions itself
        cursor = connection.cursor()
        # WAL (so that readers do not wait for writers) is a property of the file: auth/migrate.py.
        for pragma in (f"busy_timeout = {int(busy_s * 1000)}", "synchronous = FULL", "foreign_keys = ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begun(connection: Any) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get(_SQLITE_BEGIN, "BEGIN"))
