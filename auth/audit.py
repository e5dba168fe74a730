"""What happened to accounts and tokens: one log line and one count each, with who, what and from where.

No line carries a password, a token, or the e-mail of a failed log-in (people type passwords into that field).
"""

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from auth.accounts import User
from auth.devices import Device
from auth.errors import WrongCredentialsError
from auth.tokens import Issued
from runtime.logs import logger

log = logger("auth.audit")


class Audit:
    """The record of security events."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._signups = Counter("tidegate_auth_signups_total", "Sign-ups.", ["outcome"], registry=registry)
        self._logins = Counter("tidegate_auth_logins_total", "Log-ins.", ["outcome"], registry=registry)
        self._devices = Counter("tidegate_auth_devices_registered_total", "Devices registered.", registry=registry)
        self._tokens = Counter("tidegate_auth_tokens_issued_total", "JWTs issued.", ["kind"], registry=registry)
        for outcome in ("created", "taken", "closed"):
            self._signups.labels(outcome)
        for outcome in ("ok", "failed"):
            self._logins.labels(outcome)
        for kind in ("user", "device"):
            self._tokens.labels(kind)

    def signed_up(self, request: web.Request, user: User) -> None:
        """Record a new account."""
        self._signups.labels("created").inc()
        log.info("A user signed up.", user=user.id, address=client_address(request))

    def sign_up_refused(self, request: web.Request, outcome: str) -> None:
        """Record a sign-up that was `taken` or `closed`."""
        self._signups.labels(outcome).inc()
        log.info("A sign-up was refused.", outcome=outcome, address=client_address(request))

    def logged_in(self, request: web.Request, user: User, access: Issued) -> None:
        """Record a log-in and its access token."""
        self._logins.labels("ok").inc()
        log.info("A user logged in.", user=user.id, sid=access.claims.sid, address=client_address(request))
        self.token_issued(request, access, by=user.id)

    def log_in_failed(self, request: web.Request, error: WrongCredentialsError) -> None:
        """Record a log-in with wrong credentials; `user` is None when there is no such account."""
        self._logins.labels("failed").inc()
        log.warning("A log-in failed.", user=error.user_id, reason=error.reason, address=client_address(request))

    def device_registered(self, request: web.Request, device: Device) -> None:
        """Record a new device."""
        self._devices.inc()
        log.info(
            "A device was registered.",
            user=device.owner_id,
            device=device.id,
            name=device.name,
            address=client_address(request),
        )

    def token_issued(self, request: web.Request, issued: Issued, *, by: str) -> None:
        """Record a JWT: for whom, asked for by which user or device."""
        claims = issued.claims
        kind = "user" if claims.device is None else "device"
        self._tokens.labels(kind).inc()
        log.info(
            "A token was issued.",
            kind=kind,
            subject=claims.sub,
            user=claims.owner,
            jti=claims.jti,
            expires_at=claims.exp,
            by=by,
            address=client_address(request),
        )


def client_address(request: web.Request) -> str:
    """Return the address of the peer; headers that anyone can write are not believed."""
    return request.remote or "unknown"
