"""What a persister announces to devices that asked, and when."""

from itertools import groupby

from broker.message import Message
from broker.receipts import decode_stored
from readings.document import encode_document
from readings.reading import Reading
from tests.persister.harness import Harness, document


def announced(harness: Harness) -> dict[str, list[int]]:
    """The times of announced readings, counted from the first one that `document` makes, by sensorType."""
    found: dict[str, list[int]] = {}
    for payload in harness.receipts.payloads:
        for one in decode_stored(payload):
            assert (one.owner, one.device) == ("owner", "device")
            assert all(seq == 0 for _, seq in one.readings)
            found.setdefault(one.sensor_type, []).extend(ts - 1_700_000_000_000 for ts, _ in one.readings)
    return found


async def run(harness: Harness) -> None:
    async with harness.to_receipts.broadcasting():
        await harness.run()


async def test_only_readings_whose_devices_asked_are_announced() -> None:
    messages = [
        Message.of([document(number) for number in range(6)], "1-3 5-6"),
        Message.of([document(number) for number in range(6, 9)]),
    ]
    harness = Harness(messages)
    await run(harness)
    assert len(harness.store.written) == 9
    assert announced(harness) == {"temperature": [1, 2, 5]}


async def test_repeats_are_announced_and_what_is_refused_is_not() -> None:
    message = Message.of([document(1), document(2), document(3, "pressure")], "0-3")
    harness = Harness([message, Message.of([document(1)], "0-1")])
    harness.store.refuse = {document(2)}
    await run(harness)
    assert announced(harness) == {"temperature": [1, 1], "pressure": [3]}


async def test_nothing_is_announced_before_it_is_stored() -> None:
    harness = Harness([Message.of([document(1)], "0-1")], failures=3)
    seen = []
    write = harness.store.write

    async def observed(documents: list[bytes]) -> object:
        seen.append(len(harness.receipts.payloads) + len(harness.to_receipts.waiting))
        return await write(documents)

    harness.store.write = observed  # type: ignore[method-assign,assignment]
    await run(harness)
    assert seen == [0, 0, 0, 0]
    assert announced(harness) == {"temperature": [1]}


async def test_a_header_of_another_form_announces_nothing_and_is_stored() -> None:
    harness = Harness([Message.of([document(1)], "0-2"), Message.of([document(2)], "all")])
    await run(harness)
    assert harness.store.written == [document(1), document(2)]
    assert announced(harness) == {}


async def test_what_belongs_to_a_device_is_announced_in_one_place() -> None:
    names = [(owner, device, sensor) for sensor in ("t", "é") for device in ("d", "dd") for owner in ("o", "oo")]
    sent = [encode_document(*name[:2], Reading(name[2], 1, 1_700_000_000_000, 2**53 - 1, 1)) for name in names]
    harness = Harness([Message.of([one], "0-1") for one in sent])
    await run(harness)
    found = [one for payload in harness.receipts.payloads for one in decode_stored(payload)]
    assert {(one.owner, one.device, one.sensor_type) for one in found} == set(names)
    assert all(one.readings == [(1_700_000_000_000, 2**53 - 1)] for one in found)
    devices = [(one.owner, one.device) for one in found]
    assert [device for device, _ in groupby(devices)] == list(dict.fromkeys(devices))
