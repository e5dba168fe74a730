"""What an error code of MongoDB says: the document's fault, an outage, or neither for certain.

Only what the server can say of nothing but a document counts against the document at once. What it says of itself is
held and tried again, for no outage may turn good readings into dead letters. The rest is in doubt, and `Sifter` finds
out. Numbers and names are those of the server's `error_codes.yml`.
"""

from collections.abc import Mapping
from typing import Any

DUPLICATE_KEY = 11000
NAMESPACE_NOT_FOUND = 26
NAMESPACE_EXISTS = 48
# The collection is not there, or is another one than the insert has named.
COLLECTION_UUID_MISMATCH = 361
# A server older than 6.0 does not know `collectionUUID`.
UNKNOWN_FIELD = 40415

# InvalidBSON, Overflow (nested too deeply), InvalidLength, names and ids that no document may have, a validator's no,
# and the two codes for what is too large.
OF_THE_DOCUMENT = frozenset({15, 16, 22, 52, 53, 54, 55, 56, 57, 121, 10334, 17280, 17419})

_NETWORK = {6, 7, 89, 202, 317, 384, 9001}
_NOT_PRIMARY = {91, 94, 189, 190, 10058, 10107, 11600, 11602, 13435, 13436}
_INTERRUPTED = {24, 46, 50, 90, 107, 112, 117, 175, 237, 262, 279, 290, 365, 11601}
_WRITE_CONCERN = {64, 79, 100, 133, 134}
_RIGHTS = {11, 13, 18, 31, 33, 391}
_ROOM = {28, 146, 402, 462, 14031, 16500}
_CATALOGUE_AND_SHARDS = {26, 59, 63, 70, 74, 82, 96, 125, 150, 166, 225, 234, 246, 251, 267, 314, 358, 8000, 13388}
OUTAGE = frozenset().union(_NETWORK, _NOT_PRIMARY, _INTERRUPTED, _WRITE_CONCERN, _RIGHTS, _ROOM, _CATALOGUE_AND_SHARDS)
_OUTAGE_LABELS = frozenset({"RetryableWriteError", "TransientTransactionError", "SystemOverloadedError"})


def is_outage(code: int | None, details: Mapping[str, Any] | None = None) -> bool:
    """Say whether an answer speaks of the server and not of what is written. One without a code does."""
    labels = (details or {}).get("errorLabels") or ()
    return code is None or code in OUTAGE or not _OUTAGE_LABELS.isdisjoint(labels)
