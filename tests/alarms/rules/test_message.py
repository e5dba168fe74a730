"""The owner's text in a notification."""

import msgspec
import pytest

from alarms.deliveries.notification import Recorded, body_of
from alarms.rules.message import filled_in, unknown_placeholders
from readings.reading import Value
from tests.alarms.making import START_MS, make_rule


def recorded(message: str, value: Value | None, unit: str | None = "Cel") -> Recorded:
    rule = make_rule(message=message)
    return Recorded(
        rule, "alarm-1", 1, "firing", "reading", "press", "temperature", START_MS, 3, START_MS, value, unit,
        is_notified=True,
    )  # fmt: skip


def test_four_names_are_filled_in_and_all_others_are_unknown() -> None:
    assert unknown_placeholders("{device} {value} {unit} {ts} {rule} {} {Device}") == ["rule", "", "Device"]
    assert unknown_placeholders("{ } } {") == [" "]
    assert filled_in("{device}: {value}, {value}", {"device": "press", "value": "1"}) == "press: 1, 1"


def test_what_is_filled_in_is_text_and_names_nothing() -> None:
    assert filled_in("{device} {ts}", {"device": "{ts}", "ts": "{device}"}) == "{ts} {device}"


@pytest.mark.parametrize(
    ("value", "text"),
    [(81.5, "81.5"), (7, "7"), (True, "true"), ("open", "open"), ('a "b"', 'a "b"'), ("é\\", "é\\"), (None, "")],
)
def test_a_value_is_shown_as_it_was_sent(value: Value | None, text: str) -> None:
    assert recorded("[{value}]", value).message == f"[{text}]"


def test_a_body_has_type_time_and_data() -> None:
    body = msgspec.json.decode(body_of(recorded("{device} has {value} {unit} at {ts}", 81)))
    assert (body["type"], body["timestamp"]) == ("alarm.firing", "2023-11-14T22:13:20.000Z")
    assert body["data"]["message"] == "press has 81 Cel at 2023-11-14T22:13:20.000Z"
    assert body["data"]["rule"] == {"id": "rule-1", "name": "hot", "severity": "warning"}
    assert recorded("[{unit}]", 1, None).message == "[]"
