"""The tables, as the code sees them; `migrations/versions/` makes them, and a test compares the two.

Times are integers (milliseconds since 1970, UTC), so that no driver, server or session zone can shift them. Ids and
hashes are ASCII and compared byte by byte; text that people wrote is utf8mb4. Keys begin with the owner: what belongs
to one owner lies together, and no query can forget whose row it asks for.
"""

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypedColumns,
    UniqueConstraint,
)
from sqlalchemy import Column as C  # noqa: N817 - columns read as a table below
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

metadata = MetaData()


def ascii_text(length: int) -> TypeEngine[str]:
    """Text of the id alphabet, compared byte by byte in every database (MySQL's default ignores case)."""
    exact = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return String(length).with_variant(exact, "mysql")


def exact_text(length: int) -> TypeEngine[str]:
    """Any text, compared byte by byte."""
    exact = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return String(length).with_variant(exact, "mysql")


class _Users(TypedColumns):
    id = C(ascii_text(36), primary_key=True)
    name = C(String(200), nullable=False)
    email = C(String(254), nullable=False)
    # `email` in lower case: unique however it is written.
    email_key = C(exact_text(254), nullable=False)
    password_hash = C(ascii_text(60), nullable=False)
    # Raised by whatever ends all tokens at once; a token carries the value of its time.
    gen = C(Integer, nullable=False)
    created_at_ms = C(BigInteger, nullable=False)
    # Set: nobody logs in, and no token is issued for the owner's devices.
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
    # The family: every token that one log-in leads to.
    sid = C(ascii_text(36), primary_key=True)
    # SHA-256 in hex; the token itself is nowhere.
    token_hash = C(ascii_text(64), primary_key=True)
    created_at_ms = C(BigInteger, nullable=False)
    expires_at_ms = C(BigInteger, nullable=False)
    # A used token stays until it expires, so that its second use is known for what it is.
    used_at_ms = C(BigInteger)
    # From which network and program it was used: auth/tokens/issuer.py says how, and why nobody can read it back.
    used_by_hash = C(ascii_text(64))


class _SigningKeys(TypedColumns):
    # 1, 2, 3, …: the highest whose time has come signs. Two who make the next key at once meet here, and one loses.
    number = C(Integer, primary_key=True, autoincrement=False)
    kid = C(ascii_text(64), nullable=False)
    # The JWK's `x`.
    public_key = C(ascii_text(64), nullable=False)
    # The private key under SIGNING_KEY_SECRET: auth/tokens/sealing.py.
    sealed_private_key = C(ascii_text(255), nullable=False)
    created_at_ms = C(BigInteger, nullable=False)
    # From then on it signs, until a later one does; before, it is only published. None: since it was made.
    signs_at_ms = C(BigInteger)
    # From then on it checks nothing any more: when the last token that it signed is gone. With a minus: an operator has
    # ended it then, and no clock that is set back undoes that.
    retires_at_ms = C(BigInteger)


class _Revocations(TypedColumns):
    # From `revocation_counter`, whose row stays locked until the commit: numbers appear in the order of commits, so
    # that no row can turn up behind a number that a reader has passed.
    number = C(BigInteger, primary_key=True, autoincrement=False)
    # jti, sid, user, device, kid
    kind = C(ascii_text(8), nullable=False)
    id = C(ascii_text(64), nullable=False)
    # Tokens with a lower `gen` end; without it, all of them.
    gen = C(Integer)
    # When the last token that it ends would have expired, by the clock of the database's server.
    until_ms = C(BigInteger, nullable=False)


class _RevocationCounter(TypedColumns):
    # Always 1: the table has one row.
    id = C(Integer, primary_key=True, autoincrement=False)
    number = C(BigInteger, nullable=False)


class _DeletedOwners(TypedColumns):
    # An outbox: the row goes when the broker has confirmed that the persisters will erase the readings.
    owner_id = C(ascii_text(36), primary_key=True)
    deleted_at_ms = C(BigInteger, nullable=False)


class _AnnouncedOwners(TypedColumns):
    # Where a row of the outbox goes: the id of an owner who is gone is random text that says nothing of a person, and
    # what an older copy of the readings brings back is found by nothing else.
    owner_id = C(ascii_text(36), primary_key=True)
    deleted_at_ms = C(BigInteger, nullable=False)


users = Table("users", metadata, _Users, UniqueConstraint("email_key", name="users_email"))
devices = Table("devices", metadata, _Devices, UniqueConstraint("owner_id", "name", name="devices_name"))
refresh_tokens = Table(
    "refresh_tokens", metadata, _RefreshTokens, UniqueConstraint("token_hash", name="refresh_tokens_hash")
)
signing_keys = Table("signing_keys", metadata, _SigningKeys, UniqueConstraint("kid", name="signing_keys_kid"))
revocations = Table("revocations", metadata, _Revocations, Index("revocations_until", "until_ms"))
revocation_counter = Table("revocation_counter", metadata, _RevocationCounter)
deleted_owners = Table("deleted_owners", metadata, _DeletedOwners)
announced_owners = Table("announced_owners", metadata, _AnnouncedOwners)
