"""The verdict itself: it must notice everything that is wrong."""

from pathlib import Path

import pytest

from broker.connect import open_broker
from broker.message import Message
from broker.topology import DEAD_EXCHANGE
from readings.document import encode_document
from readings.reading import Reading
from tests.faults import poison
from tests.faults.verdict import Stores, Verdict, dead_of


@pytest.mark.parametrize("wrong", ["lost", "dead", "duplicated", "foreign"])
def test_one_reading_in_the_wrong_place_is_enough(wrong: str) -> None:
    counts = dict.fromkeys(("lost", "dead", "duplicated", "foreign"), 0)
    assert Verdict("name", counts).holds
    assert not Verdict("name", counts | {wrong: 1}).holds


def test_what_was_on_its_way_may_be_stored_later_and_devices_may_not_be_accepted_later() -> None:
    assert Verdict("name", accepted_s=10.0, recovered_s=10.0).holds
    assert not Verdict("name", accepted_s=1.0, recovered_s=10.1).holds
    assert Verdict("name", accepted_s=20.0, recovered_s=49.0, recovers_within_s=20.0, stored_later_by_s=30.0).holds
    assert not Verdict("name", accepted_s=20.1, recovered_s=20.2, recovers_within_s=20.0, stored_later_by_s=30.0).holds
    assert not Verdict("name", accepted_s=1.0, recovered_s=50.1, recovers_within_s=20.0, stored_later_by_s=30.0).holds


async def test_a_good_reading_is_found_in_a_dead_letter_among_bad_ones(tmp_path: Path) -> None:
    url = f"embedded://{tmp_path}/queue.db"
    good = encode_document("owner", "device", Reading("kind", 1, 2, 3, 4))
    async with open_broker(url) as broker, broker.publisher() as publisher:
        await publisher.publish(Message.of([poison.no_reading(), good]), DEAD_EXCHANGE)
        await publisher.publish(Message(b"\x10\x00\x00\x00"), DEAD_EXCHANGE)
    assert await dead_of(Stores("unused", url), "kind") == [("owner", "device", "kind", 2, 3)]


@pytest.mark.parametrize("reason", ["undecodable", "too_often"])
async def test_poison_counts_as_arrived_with_its_own_reason_only(
    tmp_path: Path, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poison, "ARRIVES_WITHIN_S", 0.1)
    url, body = f"embedded://{tmp_path}/queue.db", poison.no_reading()
    async with open_broker(url) as broker, broker.publisher() as publisher:
        await publisher.publish(Message(body, {"x-reason": reason}), DEAD_EXCHANGE)
    if reason == "undecodable":
        await poison.arrived(url, {body: "undecodable"})
    else:
        with pytest.raises(AssertionError, match="1 of 1"):
            await poison.arrived(url, {body: "undecodable"})
