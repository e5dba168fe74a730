"""The setup of the alarms benchmark: a users' database with rules, the service itself, and a receiver of webhooks."""

import asyncio
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import create_async_engine

from alarms.rules.definition import checked_definition
from alarms.webhooks.secrets import Secrets
from alarms.webhooks.signature import new_secret
from auth.migrate import migrate
from bench.environment import Environment
from bench.processes import BenchError, BenchProcess
from bench.versions import NOW
from database.alarm_tables import alarm_rule_counter, alarm_rules
from database.tables import users
from testing.issuer import ISSUER
from testing.servers.mariadb import MariaDBServer
from testing.servers.ports import free_port

SECRET = "the secret of a benchmark"
POLL_S = 0.05
SETTLE_TIMEOUT_S = 120.0
ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class GivenRule:
    """A rule to put into the database; fields as JSON has them."""

    owner: str
    definition: dict[str, Any]


@dataclass(frozen=True)
class RunningAlarms:
    """The service, the database that it uses, and where it answers."""

    process: BenchProcess
    database: "UsersDatabase"
    url: str
    ops_port: int

    def metrics(self) -> dict[str, float]:
        """Return its metrics without labels, by name."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ops_port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}

    def evaluated(self) -> int:
        """Return how many readings it has evaluated, late ones among them."""
        found = self.metrics()
        names = ("tidegate_alarms_evaluated_readings_total", "tidegate_alarms_late_readings_total")
        return int(sum(found[name] for name in names))

    def wait_until_evaluated(self, readings: int) -> None:
        """Return when it has evaluated so many readings since its start; BenchError if it does not."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while (found := self.evaluated()) < readings:
            self.process.require_running()
            if time.monotonic() > deadline:
                raise BenchError(f"{found:,} of {readings:,} readings were evaluated\n{self.process.log_tail()}")
            time.sleep(POLL_S)

    def wait_until_delivered(self) -> int:
        """Return how many webhooks were delivered, once none waits; BenchError if that does not happen."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while pending := self.database.count("alarm_deliveries WHERE state = 'pending'"):
            if time.monotonic() > deadline:
                raise BenchError(f"{pending:,} webhooks were not delivered\n{self.process.log_tail()}")
            time.sleep(POLL_S)
        return self.database.count("alarm_deliveries WHERE state = 'delivered'")


class UsersDatabase:
    """A database with the newest schema, accounts and rules."""

    def __init__(self, server: MariaDBServer) -> None:
        self.server = server
        self.url = server.create_database()
        asyncio.run(migrate(self.url))

    def count(self, of: str) -> int:
        """Return the number of rows of a table, with a condition behind its name."""
        return int(self.rows("COUNT(*)", of)[0][0])

    def rows(self, columns: str, of: str) -> list[tuple[Any, ...]]:
        """Return columns of a table, with conditions and an order behind its name."""
        return self.server.execute(f"SELECT {columns} FROM {self.name}.{of}")  # noqa: S608 - all of it is ours

    @property
    def name(self) -> str:
        """Its name on the server."""
        return self.url.rpartition("/")[2]

    def put(self, rules: Iterable[GivenRule]) -> None:
        """Add rules, and the accounts of their owners."""
        asyncio.run(self._put(list(rules)))

    async def _put(self, rules: list[GivenRule]) -> None:
        secrets = Secrets(SECRET)
        sealed = {owner: secrets.seal(owner, new_secret()) for owner in {one.owner for one in rules}}
        accounts = [_account(owner) for owner in sealed]
        rows = [_row(number, one, sealed[one.owner]) for number, one in enumerate(rules, 1)]
        engine = create_async_engine(self.url)
        async with engine.begin() as connection:
            await connection.execute(insert(users), accounts)
            for start in range(0, len(rows), ROWS_AT_ONCE):
                await connection.execute(insert(alarm_rules), rows[start : start + ROWS_AT_ONCE])
            await connection.execute(update(alarm_rule_counter).values(number=len(rows)))
        await engine.dispose()


def _account(owner: str) -> dict[str, Any]:
    names = {"id": owner, "name": owner, "email": f"{owner}@example.org", "email_key": owner}
    return names | {"gen": 0, "password_hash": "-", "created_at_ms": 0}


def _row(number: int, rule: GivenRule, sealed: str) -> dict[str, Any]:
    now_ms = time.time_ns() // 1_000_000
    return {
        "owner_id": rule.owner,
        "id": f"rule-{number}",
        "definition": msgspec.json.encode(checked_definition(rule.definition)).decode(),
        "version": 1,
        "created_at_ms": now_ms,
        "changed_at_ms": now_ms,
        "sealed_secret": sealed,
        "number": number,
    }


@contextmanager
def running_alarms(environment: Environment, database: UsersDatabase, vhost: str) -> Iterator[RunningAlarms]:
    """Run the service; ready when it takes connections."""
    port, ops_port = free_port(), free_port()
    settings = {
        "AUTH_DATABASE_URL": database.url,
        "BROKER_URL": vhost,
        "AUTH_URL": environment.auth_url,
        "TOKEN_ISSUER": ISSUER,
        "ALARM_SECRET": SECRET,
        "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "OPS_HOST": "127.0.0.1",
        "OPS_PORT": str(ops_port),
    }
    log = environment.folder / f"alarms-{database.name}.log"
    with NOW.running("alarms", log=log, settings=settings) as process:
        process.wait_for_port(port)
        yield RunningAlarms(process, database, f"http://127.0.0.1:{port}", ops_port)


class Receiver:
    """Takes webhooks while its context is open: the time of arrival, in ms since 1970, and the body of each."""

    def __init__(self) -> None:
        self.received: list[tuple[float, bytes]] = []

    @contextmanager
    def listening(self) -> Iterator[str]:
        """Yield its address."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append((time.time() * 1000, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Keep standard error for progress."""

        server = _Server(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/hook"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Server(ThreadingHTTPServer):
    request_queue_size = 1000
