import pytest

from simulator.commands import MAX_RATE, DeviceCommands


def test_identify_says_what_the_device_is() -> None:
    answer = DeviceCommands("d1", "temperature", 2.0).answer("identify", None)
    assert answer == {"status": "done", "result": {"device": "d1", "sensorType": "temperature", "rate": 2.0}}


def test_set_rate_sets_the_rate() -> None:
    commands = DeviceCommands("d1", "temperature", 2.0)
    assert commands.answer("set_rate", {"rate": 5}) == {"status": "done", "result": {"rate": 5.0}}
    assert commands.rate == 5.0


@pytest.mark.parametrize(
    "payload", [None, 5, {}, {"rate": 0}, {"rate": MAX_RATE + 1}, {"rate": "5"}, {"rate": 1, "x": 1}]
)
def test_a_wrong_rate_fails_and_changes_nothing(payload: object) -> None:
    commands = DeviceCommands("d1", "temperature", 2.0)
    assert commands.answer("set_rate", payload)["status"] == "failed"
    assert commands.rate == 2.0


def test_an_unknown_command_fails() -> None:
    assert DeviceCommands("d1", "temperature", 2.0).answer("reboot", None)["status"] == "failed"
