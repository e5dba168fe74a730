"""The tables as the code uses them: accounts, devices, keys and commands.

A new database gets them as they are here, an older one by `auth/migrations/versions/`; a test compares the two.
database/columns.py has what all tables have in common.
"""

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Text,
    TypedColumns,
    UniqueConstraint,
)
from sqlalchemy import Column as C  # noqa: N817 - columns read as a table below

from database.columns import ascii_text, exact_text, table


class _Users(TypedColumns):
    id = C(ascii_text(36), primary_key=True)
    name = C(String(200), nullable=False)
    email = C(String(254), nullable=False)
    # `email` in lower case, so that it is unique regardless of case.
    email_key = C(exact_text(254), nullable=False)
    password_hash = C(ascii_text(60), nullable=False)
    # Incremented to revoke all tokens at once; a token carries the value at the time of its issue.
    gen = C(Integer, nullable=False)
    created_at_ms = C(BigInteger, nullable=False)
    # If set, the user cannot log in and no tokens are issued for the user's devices.
    disabled_at_ms = C(BigInteger)


class _Devices(TypedColumns):
    owner_id = C(ascii_text(36), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    id = C(ascii_text(36), primary_key=True)
    name = C(ascii_text(64), nullable=False)
    sensor_type = C(ascii_text(64), nullable=False)
    # JSON: a string or {lat, lon, alt?}.
    location = C(Text, nullable=False)
    gen = C(Integer, nullable=False)
    created_at_ms = C(BigInteger, nullable=False)


class _RefreshTokens(TypedColumns):
    user_id = C(ascii_text(36), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    # The session: all tokens that descend from one log-in.
    sid = C(ascii_text(36), primary_key=True)
    # SHA-256 in hex; the token itself is not stored.
    token_hash = C(ascii_text(64), primary_key=True)
    created_at_ms = C(BigInteger, nullable=False)
    expires_at_ms = C(BigInteger, nullable=False)
    # A used token is kept until it expires, so that a second use is recognized.
    used_at_ms = C(BigInteger)
    # A hash of the network and User-Agent that used it; auth/tokens/issuer.py says why it cannot be reversed.
    used_by_hash = C(ascii_text(64))


class _SigningKeys(TypedColumns):
    # 1, 2, 3, …: of the keys whose `signs_at_ms` has passed, the highest signs. Of two concurrent inserts, one fails.
    number = C(Integer, primary_key=True, autoincrement=False)
    kid = C(ascii_text(64), nullable=False)
    # The `x` of the JWK.
    public_key = C(ascii_text(64), nullable=False)
    # The private key, encrypted with SIGNING_KEY_SECRET: auth/tokens/sealing.py.
    sealed_private_key = C(ascii_text(255), nullable=False)
    created_at_ms = C(BigInteger, nullable=False)
    # From then on it signs, until a later one does; before, it is only published. None: since its creation.
    signs_at_ms = C(BigInteger)
    # From then on it no longer verifies: the last token it signed has expired, apart from API keys, which keep it until
    # the last of them has. Negative: an operator retired it at that time, which no clock that is set back can undo.
    retires_at_ms = C(BigInteger)


class _ApiKeys(TypedColumns):
    owner_id = C(ascii_text(36), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    # The `jti` of the key, which is a JWT and is not stored.
    id = C(ascii_text(36), primary_key=True)
    name = C(String(100), nullable=False)
    # Separated by spaces, as in the token.
    scope = C(ascii_text(128), nullable=False)
    # JSON: the ids of the devices that it is limited to. None: every device of the owner.
    devices = C(Text)
    # The signing key, which verifies for as long as any key that it signed.
    kid = C(ascii_text(64), nullable=False)
    created_at_ms = C(BigInteger, nullable=False)
    expires_at_ms = C(BigInteger, nullable=False)


class _EndedApiKeys(TypedColumns):
    # Without a foreign key: it would lock the owner's row at each end of a key, for which operators lock others first.
    owner_id = C(ascii_text(36), primary_key=True)
    id = C(ascii_text(36), primary_key=True)
    # Until then every gateway and reader keeps its revocation.
    expires_at_ms = C(BigInteger, nullable=False)


class _ProvisioningKeys(TypedColumns):
    owner_id = C(ascii_text(36), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    id = C(ascii_text(36), primary_key=True)
    name = C(String(100), nullable=False)
    # SHA-256 in hex; the key itself is not stored.
    key_hash = C(ascii_text(64), nullable=False)
    max_devices = C(Integer, nullable=False)
    created_at_ms = C(BigInteger, nullable=False)
    # None: it does not expire.
    expires_at_ms = C(BigInteger)


class _DeviceClaims(TypedColumns):
    owner_id = C(ascii_text(36), primary_key=True)
    # The device's own id, unique for the owner whichever provisioning key it was claimed with.
    hardware_id = C(ascii_text(64), primary_key=True)
    device_id = C(ascii_text(36), nullable=False)
    # The key whose devices it counts as; the key may have been deleted since.
    provisioning_key_id = C(ascii_text(36), nullable=False)
    # SHA-256 in hex of the device's secret. None: released, so the next secret is accepted.
    secret_hash = C(ascii_text(64))
    claimed_at_ms = C(BigInteger, nullable=False)


class _Revocations(TypedColumns):
    # From `revocation_counter`, whose row stays locked until the commit: numbers become visible in order, so that no
    # row can appear below a number that a reader has passed.
    number = C(BigInteger, primary_key=True, autoincrement=False)
    # jti, sid, user, device, kid
    kind = C(ascii_text(8), nullable=False)
    id = C(ascii_text(64), nullable=False)
    # Revokes tokens with a lower `gen`; without it, all of them.
    gen = C(Integer)
    # When the last of the revoked tokens expires, by the database server's clock.
    until_ms = C(BigInteger, nullable=False)


class _RevocationCounter(TypedColumns):
    # Always 1: the table has one row.
    id = C(Integer, primary_key=True, autoincrement=False)
    number = C(BigInteger, nullable=False)


class _DeletedOwners(TypedColumns):
    # The outbox: a row is moved once the broker has confirmed the message that makes persisters erase the readings.
    owner_id = C(ascii_text(36), primary_key=True)
    deleted_at_ms = C(BigInteger, nullable=False)


class _AnnouncedOwners(TypedColumns):
    # Where rows of the outbox move: a deleted owner's id is random and identifies no person, and nothing else finds the
    # readings that an older backup brings back.
    owner_id = C(ascii_text(36), primary_key=True)
    deleted_at_ms = C(BigInteger, nullable=False)


class _Commands(TypedColumns):
    owner_id = C(ascii_text(36), primary_key=True)
    device_id = C(ascii_text(36), primary_key=True)
    id = C(ascii_text(36), primary_key=True)
    name = C(ascii_text(64), nullable=False)
    # JSON.
    payload = C(Text, nullable=False)
    # How long one delivery waits for the device's acknowledgement.
    timeout_ms = C(Integer, nullable=False)
    # 1: delivered at every connect until it is finished or expires; 0: somebody waits for it, and it is sent once.
    kept = C(Integer, nullable=False)
    # pending, delivered, done, failed; one of the first two is expired from `expires_at_ms` on.
    status = C(ascii_text(12), nullable=False)
    created_at_ms = C(BigInteger, nullable=False)
    expires_at_ms = C(BigInteger, nullable=False)
    delivered_at_ms = C(BigInteger)
    finished_at_ms = C(BigInteger)
    # How often it was begun to be delivered.
    deliveries = C(Integer, nullable=False)
    # While the device stays connected: when it is delivered again.
    retry_at_ms = C(BigInteger, nullable=False)
    # Until then one replica delivers it, and no other does.
    leased_until_ms = C(BigInteger, nullable=False)
    # From then on it is removed.
    remove_at_ms = C(BigInteger, nullable=False)
    # JSON, as the device acknowledged.
    result = C(Text)
    detail = C(Text)


users = table("users", _Users, UniqueConstraint("email_key", name="users_email"))
devices = table("devices", _Devices, UniqueConstraint("owner_id", "name", name="devices_name"))
refresh_tokens = table("refresh_tokens", _RefreshTokens, UniqueConstraint("token_hash", name="refresh_tokens_hash"))
signing_keys = table("signing_keys", _SigningKeys, UniqueConstraint("kid", name="signing_keys_kid"))
api_keys = table("api_keys", _ApiKeys, Index("api_keys_kid", "kid", "expires_at_ms"))
ended_api_keys = table("ended_api_keys", _EndedApiKeys)
provisioning_keys = table(
    "provisioning_keys", _ProvisioningKeys, UniqueConstraint("key_hash", name="provisioning_keys_hash")
)
device_claims = table(
    "device_claims",
    _DeviceClaims,
    ForeignKeyConstraint(
        ["owner_id", "device_id"], ["devices.owner_id", "devices.id"], ondelete="CASCADE", name="device_claims_claimed"
    ),
    UniqueConstraint("owner_id", "device_id", name="device_claims_device"),
    Index("device_claims_key", "owner_id", "provisioning_key_id"),
)
revocations = table("revocations", _Revocations, Index("revocations_until", "until_ms"))
revocation_counter = table("revocation_counter", _RevocationCounter)
deleted_owners = table("deleted_owners", _DeletedOwners)
announced_owners = table("announced_owners", _AnnouncedOwners)
commands = table(
    "commands",
    _Commands,
    ForeignKeyConstraint(
        ["owner_id", "device_id"], ["devices.owner_id", "devices.id"], ondelete="CASCADE", name="commands_device"
    ),
    Index("commands_due", "kept", "status", "retry_at_ms"),
    Index("commands_remove", "remove_at_ms"),
)
