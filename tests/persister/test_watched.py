"""What rules watch, as a persister follows it."""

from broker.alarms import Watch, Watches, encode_watches
from persister.watched import MAX_NAMES, WHOLE_EVERY_POLLS
from readings.document import encode_document, series_bytes
from readings.reading import Reading
from tests.persister.alarms_stub import Alarms


def name(device: str = "press", sensor_type: str = "temperature", owner: str = "ada") -> bytes:
    return series_bytes(encode_document(owner, device, Reading(sensor_type, 1, 1_700_000_000_000, 0, 1)))


def watch(rule: str = "r1", devices: list[str] | None = None, owner: str = "ada") -> Watch:
    return Watch(rule, owner, "temperature", devices)


def watches(alarms: Alarms, name: bytes) -> bool:
    return alarms.watched.of({name}) == [name]


def nothing(alarms: Alarms) -> bool:
    """Return whether no rule is left, so that no series is even looked at."""
    return alarms.watched.of([name("never seen")]) == [] and not alarms.watched._unwatched - {b""}


async def test_until_the_list_is_known_everything_is_watched() -> None:
    alarms = Alarms()
    for wrong in (ConnectionError("away"), TimeoutError(), b"{}"):
        alarms.answer = wrong
        await alarms.watched.poll()
        assert watches(alarms, name())
        assert not nothing(alarms)
    await alarms.says(whole=True)
    assert not watches(alarms, name())
    assert nothing(alarms)
    assert alarms.asked == [None] * 4


async def test_a_rule_watches_the_series_of_its_owner_type_and_devices() -> None:
    alarms = Alarms()
    await alarms.says(watch("r1", ["press"]), watch("r2", None, "bob"), whole=True)
    assert watches(alarms, name())
    assert watches(alarms, name("any", owner="bob"))
    for other in (name("other"), name(sensor_type="humidity"), name(owner="eve")):
        assert not watches(alarms, other)


async def test_changes_and_removals_are_followed() -> None:
    alarms = Alarms()
    await alarms.says(watch("r1", ["press"]), watch("r2", ["press", "saw"]), whole=True)
    await alarms.says(watch("r1", ["drill"]), cursor="2")
    assert [watches(alarms, name(one)) for one in ("press", "saw", "drill")] == [True, True, True]
    await alarms.says(Watch("r2", "ada", removed=True), cursor="3")
    assert [watches(alarms, name(one)) for one in ("press", "saw", "drill")] == [False, False, True]
    await alarms.says(Watch("r2", "ada", removed=True), Watch("r1", "ada", removed=True), cursor="4")
    assert nothing(alarms)
    assert alarms.asked == [None, "1", "2", "3"]


async def test_while_the_service_is_away_the_last_list_holds() -> None:
    alarms = Alarms()
    await alarms.says(watch("r1", ["press"]), whole=True)
    alarms.answer = ConnectionError("away")
    await alarms.watched.poll()
    assert watches(alarms, name())
    assert not watches(alarms, name("other"))


async def test_the_whole_list_replaces_and_is_asked_for_now_and_then() -> None:
    alarms = Alarms()
    await alarms.says(watch("r1"), whole=True)
    await alarms.says(watch("r2", ["saw"]), whole=True)
    assert [watches(alarms, name(one)) for one in ("press", "saw")] == [False, True]
    for _ in range(WHOLE_EVERY_POLLS - 1):
        await alarms.says()
    assert alarms.asked.count(None) == 2


async def test_the_whole_list_is_asked_for_until_it_comes() -> None:
    alarms = Alarms()
    await alarms.says(watch("r1"), whole=True)
    for _ in range(WHOLE_EVERY_POLLS - 1):
        await alarms.says()
    alarms.answer = ConnectionError("away")
    await alarms.watched.poll()
    await alarms.says(whole=True)
    await alarms.says()
    assert alarms.asked[-3:] == [None, None, "1"]
    assert nothing(alarms)


async def test_a_long_list_comes_in_parts_and_replaces_the_one_before_at_once() -> None:
    alarms = Alarms()
    await alarms.says(watch("r1", ["press"]), watch("r2", ["saw"]), whole=True)
    parts = {
        None: Watches([watch("r2", ["saw"])], "5", whole=True, more=True),
        "5": Watches([watch("r1", ["press"]), watch("r2", ["drill"])], "7", whole=False, more=True),
        "7": Watches([watch("r3", ["lathe"])], "9", whole=False),
    }
    meanwhile: list[bool] = []

    async def fetch(since: str | None) -> bytes:
        meanwhile.append(watches(alarms, name("press")))
        return encode_watches(parts[since])

    alarms.watched._fetch = fetch
    alarms.watched._cursor = None
    await alarms.watched.poll()
    assert meanwhile == [True, True, True]
    assert [watches(alarms, name(one)) for one in ("press", "saw", "drill", "lathe")] == [True, False, True, True]


async def test_a_list_that_is_cut_off_changes_nothing() -> None:
    alarms = Alarms()
    answers = [encode_watches(Watches([watch("r1", ["press"])], "5", whole=True, more=True)), b"cut off"]

    async def fetch(_: str | None) -> bytes:
        return answers.pop(0)

    alarms.watched._fetch = fetch
    await alarms.watched.poll()
    assert not alarms.watched.is_loaded
    assert watches(alarms, name("any")), "until the list is known, everything is watched"


async def test_a_document_without_a_key_is_never_watched() -> None:
    alarms = Alarms()
    assert not watches(alarms, b"")
    await alarms.says(watch("r1"), whole=True)
    assert not watches(alarms, b"")


async def test_more_series_than_are_remembered_are_all_answered() -> None:
    alarms = Alarms()
    await alarms.says(watch("r1", ["device-7"]), whole=True)
    alarms.watched._unwatched |= {str(number).encode() for number in range(MAX_NAMES)}
    assert alarms.watched.of([name("device-6"), name("device-7"), name("device-8")]) == [name("device-7")]
    assert len(alarms.watched._unwatched) < 10


async def test_a_series_that_several_rules_watch_is_watched_until_the_last_of_them_is_gone() -> None:
    alarms = Alarms()
    await alarms.says(watch("r1", ["press"]), watch("r2", ["press"]), watch("r3"), whole=True)
    for cursor, rule in (("2", "r3"), ("3", "r1")):
        await alarms.says(Watch(rule, "ada", removed=True), cursor=cursor)
        assert watches(alarms, name())
    assert not watches(alarms, name("other"))
    await alarms.says(Watch("r2", "ada", removed=True), cursor="4")
    assert not watches(alarms, name())
