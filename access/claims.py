"""The claims of a token: whose it is, what it permits, and until when."""

import msgspec

from readings.place import Place

# Device tokens live for 30 days; no honest issuer exceeds this.
MAX_LIFETIME_S = 31 * 86400
# Of API keys alone: a leap year.
MAX_API_KEY_LIFETIME_S = 366 * 86400


class Claims(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The claims of a token; times are seconds since 1970.

    A token belongs to a session (`sid`), a device (`device`), or is an API key (`key`, which equals `jti`). `devices`
    are the ids of the devices that an API key is limited to. `issuingKey` is the API key that a device's token was
    issued with, and ends with. `client_id` is RFC 9068's: the client the token was issued to. Tokens issued before it
    was introduced have none.
    """

    iss: str
    aud: str
    sub: str
    iat: int
    exp: int
    jti: str
    owner: str
    scope: str
    gen: int
    sid: str | None = None
    device: str | None = None
    sensor_type: str | None = None
    location: str | Place | None = None
    key: str | None = None
    devices: tuple[str, ...] | None = None
    issuing_key: str | None = None
    client_id: str | None = msgspec.field(default=None, name="client_id")

    @property
    def holder(self) -> str:
        """The id of the user, device or API key that holds the token."""
        return self.sub if self.key is None else self.key

    def allows(self, scope: str) -> bool:
        """Return whether `scope` is among the space-separated scopes."""
        return scope in self.scope.split(" ")

    def covers(self, device: str) -> bool:
        """Return whether the token is not limited to other devices of its owner."""
        return self.device in (None, device) and (self.devices is None or device in self.devices)


class Verified(Claims, frozen=True, kw_only=True):
    """Claims with a verified signature. `kid`, from the token's header, is the id of the key that signed them."""

    kid: str

    def payload(self) -> Claims:
        """Return the claims as they are in the token, without `kid`."""
        return Claims(**{name: getattr(self, name) for name in Claims.__struct_fields__})


def fault_of(claims: Claims) -> str:
    """Return what no honest issuer signs about these claims, or nothing."""
    if not (claims.sub and claims.jti and claims.owner and claims.iss):
        return "the token has empty claims"
    longest_s = MAX_LIFETIME_S if claims.key is None else MAX_API_KEY_LIFETIME_S
    if not 0 < claims.exp - claims.iat <= longest_s:
        return "the token's lifetime is not allowed"
    if [claims.sid, claims.device, claims.key].count(None) != 2:
        return "the token is not of one session, one device or one API key"
    if claims.key not in (None, claims.jti) or (claims.key is None and claims.devices is not None):
        return "the token has claims of another API key"
    if claims.device is None and claims.issuing_key is not None:
        return "the token has claims of a device"
    return ""
