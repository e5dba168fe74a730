"""A broker message: readings as documents back to back, with the number of the form that they have."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import uuid4

from readings.document import DocumentError, IndexedDocuments, index_documents, split_documents

SCHEMA = 1
CONTENT_TYPE = "application/bson"
# A message holds at most this much; a single event may need several.
MAX_READINGS = 1000
MAX_BYTES = 1024 * 1024

SCHEMA_HEADER = "x-schema"
Header = str | int
Headers = Mapping[str, Header]

Parts = TypeVar("Parts")


class DecodeError(Exception):
    """A message that this worker cannot read. `body` keeps the bytes, `reason` is the dead letter's `x-reason`."""

    def __init__(self, reason: str, message: str, body: bytes) -> None:
        super().__init__(message)
        self.reason = reason
        self.body = body


@dataclass(frozen=True, slots=True)
class Message:
    """What travels: bytes and headers. `message_id` is unique among what is in flight."""

    body: bytes = field(repr=False)
    headers: Headers = field(default_factory=lambda: {SCHEMA_HEADER: SCHEMA})
    message_id: str = field(default_factory=lambda: uuid4().hex)

    @classmethod
    def of(cls, documents: Sequence[bytes]) -> "Message":
        """Join documents into one message of the current schema."""
        return cls(b"".join(documents))

    def documents(self) -> list[bytes]:
        """Split the message into its documents; DecodeError when its schema is newer or its bytes do not fit."""
        return self._opened(split_documents)

    def cut(self) -> IndexedDocuments:
        """Split the message into its documents and index their keys in the same pass; DecodeError as `documents`."""
        return self._opened(index_documents)

    def check_schema(self) -> None:
        """Raise DecodeError when this is no message of readings, or one that a newer worker has to read."""
        schema = self.headers.get(SCHEMA_HEADER)
        if not isinstance(schema, int) or schema < 1:
            raise DecodeError("undecodable", f"the message has no {SCHEMA_HEADER} header", self.body)
        if schema > SCHEMA:
            raise DecodeError("newer_schema", f"schema {schema} is newer than this worker's {SCHEMA}", self.body)

    def _opened(self, cut: Callable[[bytes], Parts]) -> Parts:
        self.check_schema()
        if not self.body:
            raise DecodeError("undecodable", "the message is empty", self.body)
        try:
            return cut(self.body)
        except DocumentError as error:
            raise DecodeError("undecodable", str(error), self.body) from error
