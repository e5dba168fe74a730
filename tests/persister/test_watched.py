"""What rules watch, as a persister follows it."""

from broker.alarms import Watch
from persister.watched import WHOLE_EVERY_POLLS
from readings.document import encode_document, series_bytes
from readings.reading import Reading
from tests.persister.alarms_stub import Alarms


def name(device: str = "press", sensor_type: str = "temperature", owner: str = "ada") -> bytes:
    return series_bytes(encode_document(owner, device, Reading(sensor_type, 1, 1_700_000_000_000, 0, 1)))


def watch(rule: str = "r1", devices: list[str] | None = None, owner: str = "ada") -> Watch:
    return Watch(rule, owner, "temperature", devices)


async def test_until_the_list_is_known_everything_is_watched() -> None:
    alarms = Alarms()
    for wrong in (ConnectionError("away"), TimeoutError(), b"{}"):
        alarms.answer = wrong
        await alarms.watched.poll()
        assert alarms.watched.watches(name())
        assert not alarms.watched.none_at_all
    await alarms.says(whole=True)
    assert not alarms.watched.watches(name())
    assert alarms.watched.none_at_all
    assert alarms.asked == [None] * 4


async def test_a_rule_watches_the_series_of_its_owner_type_and_devices() -> None:
    alarms = Alarms()
    await alarms.says(watch("r1", ["press"]), watch("r2", None, "bob"), whole=True)
    assert alarms.watched.watches(name())
    assert alarms.watched.watches(name("any", owner="bob"))
    for other in (name("other"), name(sensor_type="humidity"), name(owner="eve")):
        assert not alarms.watched.watches(other)


async def test_changes_and_removals_are_followed() -> None:
    alarms = Alarms()
    await alarms.says(watch("r1", ["press"]), watch("r2", ["press", "saw"]), whole=True)
    await alarms.says(watch("r1", ["drill"]), cursor="2")
    assert [alarms.watched.watches(name(one)) for one in ("press", "saw", "drill")] == [True, True, True]
    await alarms.says(Watch("r2", "ada", removed=True), cursor="3")
    assert [alarms.watched.watches(name(one)) for one in ("press", "saw", "drill")] == [False, False, True]
    await alarms.says(Watch("r2", "ada", removed=True), Watch("r1", "ada", removed=True), cursor="4")
    assert alarms.watched.none_at_all
    assert alarms.asked == [None, "1", "2", "3"]


async def test_while_the_service_is_away_the_last_list_holds() -> None:
    alarms = Alarms()
    await alarms.says(watch("r1", ["press"]), whole=True)
    alarms.answer = ConnectionError("away")
    await alarms.watched.poll()
    assert alarms.watched.watches(name())
    assert not alarms.watched.watches(name("other"))


async def test_the_whole_list_replaces_and_is_asked_for_now_and_then() -> None:
    alarms = Alarms()
    await alarms.says(watch("r1"), whole=True)
    await alarms.says(watch("r2", ["saw"]), whole=True)
    assert [alarms.watched.watches(name(one)) for one in ("press", "saw")] == [False, True]
    for _ in range(WHOLE_EVERY_POLLS - 1):
        await alarms.says()
    assert alarms.asked.count(None) == 2
