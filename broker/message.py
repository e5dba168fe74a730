"""A broker message: the documents of readings back to back, with a schema number in a header."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import uuid4

from broker.headers import RECEIPTS_HEADER, SCHEMA_HEADER
from readings.document import DocumentError, IndexedDocuments, index_documents, split_documents

# The form of the body. A worker dead-letters messages of a newer schema.
SCHEMA = 1
# Bounds of one message; a single event may need several.
MAX_READINGS = 1000
MAX_BYTES = 1024 * 1024

Header = str | int
Headers = Mapping[str, Header]

Parts = TypeVar("Parts")


class DecodeError(Exception):
    """A message that this worker cannot decode. `body` is its bytes, `reason` becomes the dead letter's `x-reason`."""

    def __init__(self, reason: str, message: str, body: bytes) -> None:
        super().__init__(message)
        self.reason = reason
        self.body = body


@dataclass(frozen=True, slots=True)
class Message:
    """Bytes and headers. `message_id` is unique among the messages in flight."""

    body: bytes = field(repr=False)
    headers: Headers = field(default_factory=lambda: {SCHEMA_HEADER: SCHEMA})
    message_id: str = field(default_factory=lambda: uuid4().hex)

    @classmethod
    def of(cls, documents: Sequence[bytes], receipts: str = "") -> "Message":
        """Return one message of the current schema with these documents as its body.

        `receipts`: those whose devices asked to be told when they are stored, as broker/receipts.py writes them.
        """
        if not receipts:
            return cls(b"".join(documents))
        return cls(b"".join(documents), {SCHEMA_HEADER: SCHEMA, RECEIPTS_HEADER: receipts})

    def documents(self) -> list[bytes]:
        """Return the documents; DecodeError when the schema is missing or newer, or the body is not whole documents."""
        return self._decode(split_documents)

    def index_documents(self) -> IndexedDocuments:
        """Return the documents with their series and times, found in the same pass; DecodeError as `documents`."""
        return self._decode(index_documents)

    def check_schema(self) -> None:
        """Raise DecodeError when the schema header is missing, or newer than this worker's."""
        schema = self.headers.get(SCHEMA_HEADER)
        if not isinstance(schema, int) or schema < 1:
            raise DecodeError("undecodable", f"the message has no {SCHEMA_HEADER} header", self.body)
        if schema > SCHEMA:
            raise DecodeError("newer_schema", f"schema {schema} is newer than this worker's {SCHEMA}", self.body)

    def _decode(self, split: Callable[[bytes], Parts]) -> Parts:
        self.check_schema()
        if not self.body:
            raise DecodeError("undecodable", "the message is empty", self.body)
        try:
            return split(self.body)
        except DocumentError as error:
            raise DecodeError("undecodable", str(error), self.body) from error
