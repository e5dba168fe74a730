"""A session: the owner and device under which its readings are stored, its quota, and when it expires."""

from collections.abc import Callable

from access.revocations import RevocationKeys
from gateway.limits.rates import SessionQuota
from readings.encoder import ReadingEncoder
from readings.reading import Defaults
from runtime.token_bucket import TokenBucket

# Verifying a token costs as much as 30 readings: up to this many may be tried at once, and one more each second.
RENEWAL_BURST = 10
RENEWALS_PER_S = 1.0


class Session:
    """One connected device, or one request of a device over HTTP. `expires_at` is in seconds since 1970.

    `address` is the address that it counts for; empty for a device whose socket counts for it already. `receipts`:
    whether the device is told when its readings are stored.
    """

    __slots__ = (
        "address",
        "claim_sensor_type",
        "defaults",
        "device",
        "encoder",
        "expires_at",
        "in_flight_bytes",
        "in_flight_events",
        "owner",
        "quota",
        "receipts",
        "renewals",
        "revocation_keys",
    )

    def __init__(
        self,
        owner: str,
        device: str,
        address: str,
        defaults: Defaults,
        revocation_keys: RevocationKeys,
        expires_at: int,
        quota: SessionQuota,
        claim_sensor_type: Callable[[str], bool],
        receipts: bool = False,
    ) -> None:
        """`claim_sensor_type` is called with each sensorType that the session uses for the first time; False refuses.

        See the class for the others.
        """
        self.owner = owner
        self.device = device
        self.address = address
        self.revocation_keys = revocation_keys
        self.expires_at = expires_at
        self.quota = quota
        self.receipts = receipts
        # Events whose confirm is outstanding, and their size in bytes.
        self.in_flight_events = 0
        self.in_flight_bytes = 0
        self.encoder = ReadingEncoder(owner, device, defaults, claim_sensor_type)
        self.renewals = TokenBucket(RENEWAL_BURST, RENEWALS_PER_S)
        self.defaults = defaults
        self.claim_sensor_type = claim_sensor_type

    def renew(self, revocation_keys: RevocationKeys, defaults: Defaults, expires_at: int) -> None:
        """Continue under another token of the same owner and device. Defaults that it does not name stay.

        A user's token names no defaults; a session that began with a device's token keeps that device's.
        """
        self.revocation_keys, self.expires_at = revocation_keys, expires_at
        defaults = Defaults(
            self.defaults.sensor_type if defaults.sensor_type is None else defaults.sensor_type,
            self.defaults.location if defaults.location is None else defaults.location,
        )
        if defaults != self.defaults:
            self.defaults = defaults
            self.encoder = ReadingEncoder(self.owner, self.device, defaults, self.claim_sensor_type)
