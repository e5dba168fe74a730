"""The plain way from JSON to documents, one reading at a time: what the encoder is compared with."""

from collections.abc import Callable
from typing import Any

from readings.document import decode_document, encode_document
from readings.encoder import EncodedEvent
from readings.reading import (
    GENERATED_SEQ_START,
    Defaults,
    ReadingError,
    Rejection,
    check_one,
    split_array,
)
from tests.readings.cases import NOW, TYPED

OWNER, DEVICE = "owner-é", "device-1"


def encode_one(raw: bytes, defaults: Defaults = TYPED, now_ms: int = NOW) -> bytes:
    """Return the document of one reading; ReadingError when it is rejected."""
    return encode_document(OWNER, DEVICE, check_one(raw, defaults, now_ms))


def encode_many(raw: bytes, defaults: Defaults, now_ms: int = NOW) -> EncodedEvent:
    """Return the documents and rejections of an array; ReadingError when it is not an array."""
    event = EncodedEvent([], [])
    for index, item in enumerate(split_array(raw)):
        try:
            event.documents.append(encode_one(item, defaults, now_ms))
        except ReadingError as error:
            event.rejected.append(Rejection(index, error.code, error.detail))
    return event


def without_generated(event: EncodedEvent) -> EncodedEvent:
    """Blank generated sequence numbers: they differ each time, and only have to be generated in both."""
    documents = []
    for document in event.documents:
        seq = decode_document(document)["_id"]["seq"]
        documents.append(
            document.replace(seq.to_bytes(8, "little"), b"GENERATE") if seq >= GENERATED_SEQ_START else document
        )
    return EncodedEvent(documents, event.rejected)


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a call, or code and detail of its ReadingError."""
    try:
        return call(*arguments)
    except ReadingError as error:
        return error.code, error.detail
