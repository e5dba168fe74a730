from datetime import UTC, datetime

import bson
import pytest
from bson.datetime_ms import DatetimeMS

from broker.deleted_owner import DeletedOwner
from broker.message import DecodeError, Message

OWNER = DeletedOwner("0190b5a0-0000-7000-8000-000000000000", 1_790_000_000_123)


def test_what_was_written_is_read_again() -> None:
    assert DeletedOwner.of(OWNER.message()) == OWNER
    assert OWNER.message().headers == {"x-schema": 1}


def test_unknown_fields_of_a_later_worker_are_ignored() -> None:
    body = bson.encode({"owner": "o", "deletedAt": DatetimeMS(1), "by": "operator"})
    assert DeletedOwner.of(Message(body)) == DeletedOwner("o", 1)


def test_a_newer_schema_is_distinguished_from_a_malformed_message() -> None:
    with pytest.raises(DecodeError) as caught:
        DeletedOwner.of(Message(OWNER.message().body, {"x-schema": 2}))
    assert (caught.value.reason, caught.value.body) == ("newer_schema", OWNER.message().body)


@pytest.mark.parametrize(
    "message",
    [
        Message(OWNER.message().body, {}),
        Message(OWNER.message().body, {"x-schema": "1"}),
        Message(OWNER.message().body, {"x-schema": 0}),
        Message(b""),
        Message(b"not BSON"),
        Message(OWNER.message().body[:-1]),
        Message(OWNER.message().body * 2),
        Message(bson.encode({"deletedAt": DatetimeMS(1)})),
        Message(bson.encode({"owner": "o"})),
        Message(bson.encode({"owner": "", "deletedAt": DatetimeMS(1)})),
        Message(bson.encode({"owner": "o", "deletedAt": DatetimeMS(253_402_300_800_000)})),
        Message(bson.encode({"owner": "o", "deletedAt": DatetimeMS(-62_135_596_800_001)})),
        Message(bson.encode({"owner": 7, "deletedAt": DatetimeMS(1)})),
        Message(bson.encode({"owner": {"$ne": ""}, "deletedAt": DatetimeMS(1)})),
        Message(bson.encode({"owner": "o", "deletedAt": 1})),
    ],
)
def test_a_malformed_message_is_refused(message: Message) -> None:
    with pytest.raises(DecodeError) as caught:
        DeletedOwner.of(message)
    assert caught.value.reason == "undecodable"


@pytest.mark.parametrize("at_ms", [253_402_300_799_999, -62_135_596_800_000])
def test_every_time_that_is_read_is_a_date_of_python_s(at_ms: int) -> None:
    deleted = DeletedOwner.of(DeletedOwner("o", at_ms).message())
    assert datetime.fromtimestamp(deleted.deleted_at_ms / 1000, UTC).year in (1, 9999)
