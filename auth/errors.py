"""The errors of accounts, sessions and devices. The HTTP calls map each to a status."""

from typing import Literal

ClaimRefusal = Literal["unknown_key", "expired_key", "disabled"]
CredentialsReason = Literal["unknown_user", "wrong_password", "damaged_hash", "disabled", "changed_meanwhile"]


class AuthError(Exception):
    """Base class of the errors below."""


class EmailTakenError(AuthError):
    """An account has this e-mail address already."""


class WrongCredentialsError(AuthError):
    """E-mail and password do not match. The reason goes to the audit log only, never to the client."""

    def __init__(self, reason: CredentialsReason, user_id: str | None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.user_id = user_id


class RefreshError(AuthError):
    """A refresh token was refused. Clients learn the reason `raced` only; the audit log has all.

    `raced`: the same client has just used it, and the session goes on. `reused`: the session was ended.
    """

    def __init__(
        self, reason: Literal["unknown", "expired", "raced", "reused"], user_id: str | None, sid: str | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.user_id = user_id
        self.sid = sid


class NoSuchUserError(AuthError):
    """There is no such account, or it was deleted."""


class NameTakenError(AuthError):
    """The owner has a device with this name already."""


class TooManyDevicesError(AuthError):
    """The owner has the maximum number of devices."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"at most {limit} devices")
        self.limit = limit


class NoSuchDeviceError(AuthError):
    """The owner has no device with this id, although others may."""


class EndedSessionError(AuthError):
    """The session has ended since its token was verified."""


class TooManyApiKeysError(AuthError):
    """The owner has the maximum number of API keys."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"at most {limit} API keys")
        self.limit = limit


class TooManyEndedApiKeysError(AuthError):
    """The owner has ended the maximum number of API keys that would still be valid, the first until `until_ms`."""

    def __init__(self, limit: int, until_ms: int) -> None:
        super().__init__(f"at most {limit} ended API keys")
        self.limit = limit
        self.until_ms = until_ms


class NoSuchApiKeyError(AuthError):
    """The owner has no API key with this id: it was deleted or has expired, or is another owner's."""


class ExpiredKeyError(AuthError):
    """The API key expires now, and so would what it issues."""


class NotYourDevicesError(AuthError):
    """The owner has no devices with these ids."""

    def __init__(self, ids: set[str]) -> None:
        super().__init__(f"{len(ids)} unknown devices")
        self.ids = ids


class NoSuchProvisioningKeyError(AuthError):
    """The owner has no provisioning key with this id."""


class TooManyProvisioningKeysError(AuthError):
    """The owner has the maximum number of provisioning keys."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"at most {limit} provisioning keys")
        self.limit = limit


class ClaimRefusedError(AuthError):
    """A provisioning key has ended, or never was, or its owner is disabled."""

    def __init__(self, reason: ClaimRefusal) -> None:
        super().__init__(reason)
        self.reason = reason


class TooManyClaimsError(AuthError):
    """There are as many devices as may be claimed with the provisioning key."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"at most {limit} devices")
        self.limit = limit


class ClaimedError(AuthError):
    """The device is claimed with another secret."""


class NotClaimedError(AuthError):
    """The device is not claimed, or was released already."""


class TooManyCommandsError(AuthError):
    """The device has the maximum number of pending commands."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"at most {limit} pending commands")
        self.limit = limit
