"""The keys of stored readings: the order of their fields is the contract's."""

from readings.keys import reading_key, series_key


def test_keys_have_the_contracts_order() -> None:
    assert list(series_key("o", "d", "t")) == ["owner", "device", "sensorType"]
    assert list(reading_key("o", "d", "t", 1, 2)) == ["owner", "device", "sensorType", "ts", "seq"]
