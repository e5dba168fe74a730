"""What can be wrong with a request that is well formed. HTTP gives each its status at the edge."""

from typing import Literal

CredentialsReason = Literal["unknown_user", "wrong_password", "damaged_hash", "disabled", "changed_meanwhile"]


class AuthError(Exception):
    """The root of what accounts and devices refuse."""


class EmailTakenError(AuthError):
    """Another account has this e-mail address."""


class WrongCredentialsError(AuthError):
    """E-mail and password do not belong together. Clients never learn the reason; the audit log does."""

    def __init__(self, reason: CredentialsReason, user_id: str | None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.user_id = user_id


class RefreshError(AuthError):
    """A refresh token does not serve. Of the reasons clients learn `raced` only; the audit log has all.

    `raced`: used a moment ago by the same client, whose session goes on. `reused`: its session was ended.
    """

    def __init__(
        self, reason: Literal["unknown", "expired", "raced", "reused"], user_id: str | None, sid: str | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.user_id = user_id
        self.sid = sid


class NoSuchUserError(AuthError):
    """There is no such account, or no longer."""


class NameTakenError(AuthError):
    """The owner has a device of this name."""


class TooManyDevicesError(AuthError):
    """The owner has as many devices as one may have."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"at most {limit} devices")
        self.limit = limit


class NoSuchDeviceError(AuthError):
    """The owner has no device of this id, whoever else may have one."""
