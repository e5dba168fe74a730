"""A session: which owner and device what comes in is stored under, what it may send, and until when."""

from collections.abc import Callable
from dataclasses import dataclass, field

from access.revocations import RevocationKeys
from gateway.limits.rates import Allowance
from readings.encoder import ReadingEncoder
from readings.reading import Defaults


@dataclass(slots=True)
class Session:
    """One connected device, or one request of a device over HTTP. `expires_at` is in seconds since 1970.

    `address` is where it counts; empty for a device whose socket counts there already.
    """

    owner: str
    device: str
    address: str
    defaults: Defaults
    marks: RevocationKeys
    expires_at: int
    allowance: Allowance
    # Asked about each sensorType that the session has not named yet.
    may_name: Callable[[str], bool]
    intake: ReadingEncoder = field(init=False, repr=False)
    # Events whose confirm is still to come, and their size.
    in_flight_events: int = 0
    in_flight_bytes: int = 0
    # When the tries at renewing that count against it are all forgotten, in seconds of a clock of its own.
    renewals_until: float = float("-inf")

    def __post_init__(self) -> None:
        self.intake = ReadingEncoder(self.owner, self.device, self.defaults, self.may_name)

    def renew(self, marks: RevocationKeys, defaults: Defaults, expires_at: int) -> None:
        """Go on under another token of the same owner and device. What it does not say stays as it was.

        A user's token knows of no sensor; whoever connected with the device's own is still that sensor.
        """
        self.marks, self.expires_at = marks, expires_at
        defaults = Defaults(
            self.defaults.sensor_type if defaults.sensor_type is None else defaults.sensor_type,
            self.defaults.location if defaults.location is None else defaults.location,
        )
        if defaults != self.defaults:
            self.defaults = defaults
            self.intake = ReadingEncoder(self.owner, self.device, defaults, self.may_name)
