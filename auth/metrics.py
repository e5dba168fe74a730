"""What auth counts. No label grows with users or devices."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from runtime.metrics import preset_labels

_HASH_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5)


class AuthMetrics:
    """The auth service's metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.signups = Counter("tidegate_auth_signups_total", "Sign-ups by outcome.", ["outcome"], registry=registry)
        preset_labels(self.signups, "created", "taken", "closed")
        self.logins = Counter("tidegate_auth_logins_total", "Log-ins by outcome.", ["outcome"], registry=registry)
        preset_labels(self.logins, "ok", "failed")
        self.refreshes = Counter(
            "tidegate_auth_refreshes_total", "Session refreshes by outcome.", ["outcome"], registry=registry
        )
        preset_labels(self.refreshes, "ok", "refused", "raced", "reused")
        self.endings = Counter(
            "tidegate_auth_endings_total", "Events that revoked tokens, by cause.", ["what"], registry=registry
        )
        preset_labels(self.endings, "logout", "reuse", "password", "account", "device", "key")
        self.tokens = Counter(
            "tidegate_auth_tokens_issued_total", "JWTs issued, by kind of holder.", ["kind"], registry=registry
        )
        preset_labels(self.tokens, "user", "device", "key")
        self.devices = Counter("tidegate_auth_devices_registered_total", "Devices registered.", registry=registry)
        self.rate_limited = Counter(
            "tidegate_auth_rate_limited_total",
            "Requests refused by the throttle for log-ins, refreshes, sign-ups, API keys and claims, by scope.",
            ["scope"],
            registry=registry,
        )
        preset_labels(self.rate_limited, "account", "address", "key")
        self.claims = Counter(
            "tidegate_auth_device_claims_total", "Claims of devices by outcome.", ["outcome"], registry=registry
        )
        preset_labels(self.claims, "new", "repeated", "claimed", "refused")
        self.hash_seconds = Histogram(
            "tidegate_auth_password_hash_seconds",
            "Time to hash or verify one password, in a worker thread.",
            registry=registry,
            buckets=_HASH_SECONDS,
        )
        self.hashes_refused = Counter(
            "tidegate_auth_password_refused_total",
            "Passwords refused unchecked because all hashing threads and their queue were full.",
            registry=registry,
        )
        self.deletions_waiting = Gauge(
            "tidegate_auth_deleted_owners_waiting", "Deleted owners not yet announced.", registry=registry
        )
        self.commands = Counter(
            "tidegate_auth_commands_total", "Commands by what their sender was told.", ["outcome"], registry=registry
        )
        preset_labels(self.commands, "done", "failed", "timeout", "offline", "kept", "refused")
        self.command_deliveries = Counter(
            "tidegate_auth_command_deliveries_total",
            "Deliveries of commands to gateways, by outcome.",
            ["outcome"],
            registry=registry,
        )
        preset_labels(self.command_deliveries, "done", "failed", "unanswered", "lost", "absent")
