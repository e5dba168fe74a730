"""Live readings: payloads of stored documents, and how they are split again."""

import pytest

from broker.live import forget_series, live_payloads, live_readings
from broker.message import MAX_BYTES
from readings.document import DocumentError, encode_document
from readings.reading import Reading


def document(device: str, number: int) -> bytes:
    return encode_document("owner", device, Reading("temperature", number / 2, 1_700_000_000_000 + number, 0, number))


def test_documents_travel_unchanged_with_their_series() -> None:
    documents = [document("d-1", 1), document("d-2", 2), document("d-1", 3)]
    (payload,) = live_payloads(documents)
    assert payload == b"".join(documents)
    readings = live_readings(payload)
    assert [reading.document for reading in readings] == documents
    assert [(reading.owner, reading.device, reading.sensor_type) for reading in readings] == [
        ("owner", "d-1", "temperature"),
        ("owner", "d-2", "temperature"),
        ("owner", "d-1", "temperature"),
    ]
    assert readings[1].decoded()["value"] == 1.0


def test_names_that_many_series_have_are_kept_once() -> None:
    (payload,) = live_payloads([document("d-1", 1), encode_document("owner", "d-1", Reading("humidity", 1, 0, 0, 1))])
    first, second = live_readings(payload)
    assert first.device is second.device
    assert first.owner is second.owner
    forget_series()
    (again,) = live_readings(document("d-1", 1))
    assert again.device == first.device
    assert again.device is not first.device, "nothing is kept of it"


def test_no_documents_make_no_payload_and_many_make_several() -> None:
    assert list(live_payloads([])) == []
    one = document("d", 1)
    documents = [one] * (MAX_BYTES // len(one) + 5)
    payloads = list(live_payloads(documents))
    assert len(payloads) == 2
    assert all(len(payload) <= MAX_BYTES for payload in payloads)
    assert b"".join(payloads) == b"".join(documents)


@pytest.mark.parametrize("payload", [b"no BSON", b"\x05\x00\x00\x00\x00", document("d", 1)[:-1], b'{"value":1}'])
def test_what_is_no_live_reading_is_refused(payload: bytes) -> None:
    with pytest.raises(DocumentError):
        live_readings(payload)
