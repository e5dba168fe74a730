"""Messages: those that this worker decodes, and the reasons for refusing others."""

from typing import Any

import msgspec
import pytest

from broker.headers import SCHEMA_HEADER
from broker.message import SCHEMA, DecodeError, Message
from readings.document import encode_document
from readings.reading import Reading

DOCUMENTS = [encode_document("o", "d", Reading("t", number, number, 0, number)) for number in range(3)]


def test_documents_travel_unchanged_and_in_order() -> None:
    message = Message.of(DOCUMENTS)
    assert message.body == b"".join(DOCUMENTS)
    assert message.headers == {SCHEMA_HEADER: SCHEMA}
    assert message.documents() == DOCUMENTS


def test_every_message_has_an_id_of_its_own() -> None:
    assert len({Message.of(DOCUMENTS).message_id for _ in range(1000)}) == 1000


def test_a_message_does_not_show_its_body() -> None:
    assert "secret" not in repr(Message(b"secret"))


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        ({SCHEMA_HEADER: SCHEMA + 1}, b"".join(DOCUMENTS), "newer_schema"),
        ({SCHEMA_HEADER: 2**40}, b"whatever a newer form may be", "newer_schema"),
        ({}, b"".join(DOCUMENTS), "undecodable"),
        ({SCHEMA_HEADER: "1"}, b"".join(DOCUMENTS), "undecodable"),
        ({SCHEMA_HEADER: 0}, b"".join(DOCUMENTS), "undecodable"),
        ({SCHEMA_HEADER: -1}, b"".join(DOCUMENTS), "undecodable"),
        ({SCHEMA_HEADER: 1}, b"", "undecodable"),
        ({SCHEMA_HEADER: 1}, b"no BSON", "undecodable"),
        ({SCHEMA_HEADER: 1}, b"".join(DOCUMENTS)[:-1], "undecodable"),
        ({SCHEMA_HEADER: 1}, msgspec.json.encode({"value": 1}), "undecodable"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_reason_and_keeps_its_bytes(
    headers: dict[str, Any], body: bytes, reason: str
) -> None:
    with pytest.raises(DecodeError) as refused:
        Message(body, headers).documents()
    assert refused.value.reason == reason
    assert refused.value.body == body
    assert str(refused.value)
