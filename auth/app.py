"""Where the parts of `auth` are wired together, and nowhere else."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry

from auth.accounts import Accounts
from auth.audit import Audit
from auth.bearer import Bearer
from auth.database import Database, open_database
from auth.devices import Devices
from auth.http_accounts import AccountRoutes
from auth.http_devices import DeviceRoutes
from auth.http_tokens import TokenRoutes
from auth.keys import KeyRing, load_keys
from auth.migrate import migrate, require_schema
from auth.passwords import PasswordHasher, password_hasher
from auth.sessions import Sessions
from auth.settings import AuthSettings, DatabaseSettings
from auth.tokens import TokenIssuer
from runtime.listen import listen
from runtime.logs import logger
from runtime.ops import ops_server
from runtime.problems import problem_middleware
from runtime.process import Shutdown
from runtime.tokens import KeySet, TokenVerifier

log = logger("auth")


class AuthService:
    """Everything behind `auth`'s HTTP interface, to be put into an application: its own, or one shared with others."""

    def __init__(self, database: Database, keys: KeyRing, routes: Sequence[web.RouteDef]) -> None:
        self._database = database
        self._keys = keys
        self._routes = routes

    def add_routes(self, app: web.Application) -> None:
        """Add the calls to `app`, which must have `problem_middleware`; nothing else of `app` is touched."""
        app.add_routes(self._routes)

    async def jwks(self) -> dict[str, Any]:
        """Return the public keys: what a `runtime.tokens.KeySet` of the same process fetches."""
        return await self._keys.jwks()

    async def check(self) -> None:
        """Raise when the database does not answer: for `/readyz`."""
        await self._database.check()


@asynccontextmanager
async def auth_service(settings: AuthSettings, *, registry: CollectorRegistry) -> AsyncIterator[AuthService]:
    """Open the database, load or make the signing keys, and give the service until the context ends.

    Raises SchemaError when the database has not been migrated, KeysError when the secret does not open the keys.
    """
    timeout_s, connections = settings.database_timeout_seconds, settings.database_connections
    async with open_database(settings.auth_database_url, connections=connections, timeout_s=timeout_s) as database:
        await require_schema(database)
        keys = await load_keys(database, settings.signing_key_secret)
        with password_hasher(
            cost=settings.bcrypt_cost, threads=settings.hash_threads, queue=settings.hash_queue, registry=registry
        ) as passwords:
            routes = await _routes(settings, database, keys, passwords, registry)
            yield AuthService(database, keys, routes)


async def _routes(
    settings: AuthSettings, database: Database, keys: KeyRing, passwords: PasswordHasher, registry: CollectorRegistry
) -> list[web.RouteDef]:
    issuer = TokenIssuer(
        keys,
        issuer=settings.token_issuer,
        access_s=settings.access_token_seconds,
        device_s=settings.device_token_seconds,
    )
    key_set = KeySet(keys.jwks)
    await key_set.refresh()
    bearer = Bearer(TokenVerifier(key_set, settings.token_issuer))
    audit = Audit(registry)
    sessions = Sessions(database, issuer, settings.refresh_token_seconds)
    accounts = Accounts(database, passwords)
    signup_open = settings.signup == "open"
    return [
        *AccountRoutes(accounts, sessions, audit, signup_open=signup_open).routes(),
        *DeviceRoutes(Devices(database, settings.max_devices_per_owner), issuer, bearer, audit).routes(),
        *TokenRoutes(bearer, keys.jwks).routes(),
    ]


async def serve(settings: AuthSettings, shutdown: Shutdown) -> None:
    """Serve until a stop is asked for; open requests then have their answer before the database closes."""
    registry = CollectorRegistry()
    async with (
        auth_service(settings, registry=registry) as auth,
        ops_server(settings, shutdown, registry, {"database": auth.check}),
    ):
        app = web.Application(middlewares=[problem_middleware])
        auth.add_routes(app)
        async with listen(app, settings.host, settings.port) as port:
            log.info("Accounts, devices and tokens are served.", host=settings.host, port=port)
            await shutdown.wait()


async def migrate_once(settings: DatabaseSettings, _: Shutdown) -> None:
    """Bring the database to the newest schema and say what was done."""
    done = await migrate(settings.auth_database_url)
    if done.before == done.after:
        log.info("The database has the newest schema; nothing was done.", revision=done.after)
    else:
        log.info("The database was migrated.", before=done.before or "empty", after=done.after)
