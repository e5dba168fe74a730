"""MongoDB's errors: what is raised in place of the driver's exceptions, and what an error code means.

A code that can only mean the document makes that document dead at once. A code about the server is an outage: the write
is retried, because no outage may turn good readings into dead letters. Every other code is ambiguous, and
`persister.poison` decides. Numbers and names are those of the server's `error_codes.yml`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError

DUPLICATE_KEY = 11000
UNAUTHORIZED = 13
NAMESPACE_NOT_FOUND = 26
NAMESPACE_EXISTS = 48
# The collection does not exist, or is not the one that the insert named.
COLLECTION_UUID_MISMATCH = 361
# Servers older than 6.0 do not know `collectionUUID`.
UNKNOWN_FIELD = 40415

# InvalidBSON, Overflow (nested too deeply), InvalidLength, names and ids that no document may have, a validator's
# refusal, and the two codes for a document that is too large.
DOCUMENT_ERRORS = frozenset({15, 16, 22, 52, 53, 54, 55, 56, 57, 121, 10334, 17280, 17419})

_NETWORK = {6, 7, 89, 202, 317, 384, 9001}
_NOT_PRIMARY = {91, 94, 189, 190, 10058, 10107, 11600, 11602, 13435, 13436}
_INTERRUPTED = {24, 46, 50, 90, 107, 112, 117, 175, 237, 262, 279, 290, 365, 11601}
_WRITE_CONCERN = {64, 79, 100, 133, 134}
_RIGHTS = {11, 13, 18, 31, 33, 391}
_ROOM = {28, 146, 402, 462, 14031, 16500}
_CATALOGUE_AND_SHARDS = {26, 59, 63, 70, 74, 82, 96, 125, 150, 166, 225, 234, 246, 251, 267, 314, 358, 8000, 13388}
OUTAGES = frozenset().union(_NETWORK, _NOT_PRIMARY, _INTERRUPTED, _WRITE_CONCERN, _RIGHTS, _ROOM, _CATALOGUE_AND_SHARDS)
_OUTAGE_LABELS = frozenset({"RetryableWriteError", "TransientTransactionError", "SystemOverloadedError"})


class WriteFailed(Exception):
    """MongoDB did not answer, did not take the whole write, or did not confirm that it is safe: do all of it again."""


class WriteRefused(Exception):
    """MongoDB took none of the documents. `code` is its error code.

    `certain`: the code can only mean a document. Otherwise it does not tell whether a document is to blame.
    """

    def __init__(self, message: str, code: int, *, certain: bool) -> None:
        super().__init__(message)
        self.code = code
        self.certain = certain


def is_outage(code: int | None, details: Mapping[str, Any] | None = None) -> bool:
    """Return whether an error is the server's, not the document's. An error without a code counts as an outage."""
    labels = (details or {}).get("errorLabels") or ()
    return code is None or code in OUTAGES or not _OUTAGE_LABELS.isdisjoint(labels)


def is_outage_of(error: Exception) -> bool:
    """Return whether an OperationFailure is the server's error; of a bulk write, whether any of its errors is.

    False for any other exception.
    """
    if not isinstance(error, OperationFailure):
        return False
    if not isinstance(error, BulkWriteError):
        return any(map(error.has_error_label, _OUTAGE_LABELS)) or is_outage(error.code, error.details)
    details = error.details or {}
    # What no majority has is no fault of any document.
    return bool(details.get("writeConcernErrors")) or any(
        is_outage(one.get("code"), one) for one in details.get("writeErrors", ())
    )


def error_text(error: Exception) -> str:
    """Return an error's type and the first 300 characters of its message."""
    return f"{type(error).__name__}: {str(error)[:300]}"


@contextmanager
def translating_errors() -> Iterator[None]:
    """Raise WriteFailed in place of the driver's errors."""
    try:
        yield
    except PyMongoError as error:
        raise WriteFailed(error_text(error)) from error
