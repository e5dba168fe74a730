"""The composition root of `auth`: the only place where its parts are wired together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

from access.public_api import PUBLIC_API
from access.tokens import KeySet, TokenVerifier
from auth.accounts import Accounts
from auth.api_keys import ApiKeys
from auth.audit import AuditLog
from auth.claim_throttle import ClaimThrottle
from auth.commands.gateways import Gateways
from auth.commands.kept import KeptCommands
from auth.commands.sender import CommandSender
from auth.commands.store import CommandStore
from auth.deletion_outbox import OwnerDeletionOutbox
from auth.device_claims import DeviceClaims
from auth.device_import import DeviceImport
from auth.devices import DeviceRegistry
from auth.http.accounts import AccountRoutes
from auth.http.api_keys import ApiKeyRoutes
from auth.http.authorizer import Authorizer
from auth.http.bodies import MAX_PAGE, DevicesAnswer, RevocationsAnswer
from auth.http.claims import ClaimRoutes
from auth.http.commands import CommandRoutes
from auth.http.device_batch import DeviceBatchRoutes
from auth.http.devices import DeviceRoutes
from auth.http.provisioning import ProvisioningRoutes
from auth.http.sessions import SessionRoutes
from auth.http.tokens import TokenRoutes
from auth.login_throttle import LoginThrottle
from auth.metrics import AuthMetrics
from auth.migrate import migrate
from auth.passwords import PasswordHasher, password_hasher
from auth.provisioning import ProvisioningKeys
from auth.schema import require_schema
from auth.sessions import Sessions
from auth.settings import AuthSettings, DatabaseSettings
from auth.tokens.issuer import TokenIssuer
from auth.tokens.key_files import read_key_files
from auth.tokens.keys import JWKS_AGE_S, REREAD_EVERY_S, KeyRing
from auth.tokens.revocations import RevocationLog
from auth.tokens.status import TokenStatus
from auth.tokens.stored_keys import StoredKeys
from broker.connect import open_broker
from broker.interface import Broker
from database.connection import Database, open_database
from runtime.http.addresses import ClientAddresses
from runtime.http.cors import allow_origins
from runtime.http.docs import add_docs
from runtime.http.listen import listen
from runtime.http.operation import Operation
from runtime.http.ops import ops_server
from runtime.http.problems import Problem, problem_middleware
from runtime.logs import logger
from runtime.process import Shutdown, freeze_startup_objects

log = logger("auth")


class AuthService:
    """Everything behind `auth`'s HTTP API, to be added to an application, its own or a shared one."""

    def __init__(
        self,
        database: Database,
        keys: KeyRing,
        revocations: RevocationLog,
        devices: DeviceRegistry,
        calls: list[Operation],
    ) -> None:
        self._database = database
        self._keys = keys
        self._revocations = revocations
        self._devices = devices
        self.calls = calls

    def add_routes(self, app: web.Application, *, internal: bool = False) -> None:
        """Add the calls to `app`, which must have `problem_middleware`; nothing else in `app` changes.

        `internal` also adds the calls for other services; never set it on a public interface.
        """
        app.add_routes([call.route() for call in self.calls if internal or not call.internal])

    async def jwks(self) -> dict[str, Any]:
        """Return the JWKS, for an `access.tokens.KeySet` of the same process."""
        return await self._keys.jwks()

    async def revocations(self, since: str | None) -> bytes:
        """Return the response body of `GET /revocations`, for a `RevocationList` of the same process.

        Raises ConnectionError if the database does not answer, as a poll over HTTP would.
        """
        try:
            revoked = await self._revocations.after(int(since) if since else None)
        except Problem as problem:
            raise ConnectionError(problem.detail) from problem
        return msgspec.json.encode(RevocationsAnswer.of(revoked))

    async def devices(self, owner: str, _: str, cursor: str | None) -> bytes:
        """Return the response body of `GET /devices`, for a reader of the same process, which has verified the token.

        Raises ConnectionError as `revocations` does.
        """
        try:
            page = await self._devices.page(owner, name=None, after=cursor, limit=MAX_PAGE)
        except Problem as problem:
            raise ConnectionError(problem.detail) from problem
        return msgspec.json.encode(DevicesAnswer.of(page))

    async def check(self) -> None:
        """Raise Problem 503 if the database does not answer: for `/readyz`."""
        await self._database.check()


@asynccontextmanager
async def auth_service(
    settings: AuthSettings, *, registry: CollectorRegistry, broker: Broker | None = None
) -> AsyncIterator[AuthService]:
    """Open the database, load or create the signing keys, and yield the service until the context ends.

    Raises SchemaError if the database has not been migrated, KeysError if the secret does not decrypt the signing key.
    Without a broker, deleted owners wait in the database to be announced.
    """
    timeout_s, connections = settings.database_timeout_seconds, settings.database_connections
    async with open_database(settings.auth_database_url, connections=connections, timeout_s=timeout_s) as database:
        await require_schema(database)
        metrics = AuthMetrics(registry)
        deletions = OwnerDeletionOutbox(database, metrics)
        store = CommandStore(database, settings.command_history_seconds * 1000)
        with password_hasher(
            cost=settings.bcrypt_cost, threads=settings.hash_threads, queue=settings.hash_queue, metrics=metrics
        ) as passwords:
            async with (
                (await _key_ring(settings, database)).kept_fresh() as keys,
                # As fresh as the ring, so that a retired key no longer verifies here a second later.
                KeySet(keys.jwks, every_s=REREAD_EVERY_S, at_most_every_s=JWKS_AGE_S).kept_fresh() as key_set,
                deletions.announcing(broker),
                _command_sender(store, broker, metrics) as sender,
            ):
                commands = (store, sender)
                yield _service(settings, database, keys, key_set, passwords, deletions, commands, metrics)


@asynccontextmanager
async def _command_sender(
    store: CommandStore, broker: Broker | None, metrics: AuthMetrics
) -> AsyncIterator[CommandSender | None]:
    if broker is None:
        yield None
        return
    async with Gateways.connected(broker) as gateways:
        kept = KeptCommands(store, gateways, metrics)
        async with kept.delivering():
            yield CommandSender(store, gateways, kept, metrics)


async def _key_ring(settings: AuthSettings, database: Database) -> KeyRing:
    if settings.signing_key_files:
        return KeyRing(read_key_files(settings.signing_key_files))
    stored = StoredKeys(database, settings.signing_key_secret)
    return KeyRing(await stored.load(), stored.reread)


def _service(
    settings: AuthSettings,
    database: Database,
    keys: KeyRing,
    key_set: KeySet,
    passwords: PasswordHasher,
    deletions: OwnerDeletionOutbox,
    commands: tuple[CommandStore, CommandSender | None],
    metrics: AuthMetrics,
) -> AuthService:
    access_s, device_s = settings.access_token_seconds, settings.device_token_seconds
    issuer = TokenIssuer(keys, issuer=settings.token_issuer, access_s=access_s, device_s=device_s)
    authorizer = Authorizer(TokenVerifier(key_set, settings.token_issuer), TokenStatus(database).require_active)
    addresses = ClientAddresses(settings.trusted_proxies)
    audit, throttle = AuditLog(metrics, addresses), LoginThrottle(settings, addresses, metrics)
    revocations = RevocationLog(database, access_s=access_s, device_s=device_s)
    sessions = Sessions(database, issuer, revocations, access_s=access_s, refresh_s=settings.refresh_token_seconds)
    api_keys = ApiKeys(database, issuer, revocations)
    accounts = Accounts(database, passwords, revocations)
    most_devices = settings.max_devices_per_owner
    devices, imports = DeviceRegistry(database, revocations, most_devices), DeviceImport(database, most_devices)
    device_claims = DeviceClaims(
        database, revocations, max_per_owner=most_devices, queue_timeout_s=settings.database_timeout_seconds
    )
    claim_throttle = ClaimThrottle(settings, addresses, metrics)
    signup_open = settings.signup == "open"
    calls = [
        *AccountRoutes(accounts, authorizer, throttle, deletions, audit, signup_open=signup_open).calls(),
        *SessionRoutes(accounts, sessions, authorizer, throttle, audit, addresses).calls(),
        *ApiKeyRoutes(api_keys, throttle, authorizer, audit).calls(),
        *DeviceRoutes(devices, api_keys, issuer, authorizer, audit).calls(),
        *DeviceBatchRoutes(imports, issuer, authorizer, audit).calls(),
        *ProvisioningRoutes(ProvisioningKeys(database), authorizer, audit).calls(),
        *ClaimRoutes(device_claims, issuer, authorizer, claim_throttle, audit).calls(),
        *CommandRoutes(devices, *commands, authorizer, audit).calls(),
        *TokenRoutes(authorizer, keys.jwks, revocations).calls(),
    ]
    return AuthService(database, keys, revocations, devices, calls)


async def serve(settings: AuthSettings, shutdown: Shutdown) -> None:
    """Serve until a stop is requested; open requests are then answered before the database closes."""
    registry, listening = CollectorRegistry(), asyncio.Event()
    async with (
        _broker(settings.broker_url) as broker,
        auth_service(settings, registry=registry, broker=broker) as auth,
        ops_server(settings, shutdown, registry, {"database": auth.check}, listening),
    ):
        app = web.Application(middlewares=[problem_middleware])
        allow_origins(app, settings.cors_origins)
        auth.add_routes(app, internal=True)
        add_docs(app, PUBLIC_API, auth.calls)
        async with listen(app, settings.host, settings.port, listening=listening) as port:
            log.info("Accounts, devices and tokens are served.", host=settings.host, port=port)
            freeze_startup_objects()
            await shutdown.wait()


@asynccontextmanager
async def _broker(url: str) -> AsyncIterator[Broker | None]:
    if not url:
        yield None
        return
    async with open_broker(url) as broker:
        yield broker


async def migrate_once(settings: DatabaseSettings, _: Shutdown) -> None:
    """Upgrade the database to the newest schema and log the result."""
    done = await migrate(settings.auth_database_url)
    if done.before == done.after:
        log.info("The database already has the newest schema; nothing was changed.", revision=done.after)
    else:
        log.info("The database was migrated.", before=done.before or "empty", after=done.after)
