"""Presence: events in any order, late or repeated, lead to the same state, which recovers from silence and loss."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.presence import (
    ALIVE_EVERY_S,
    FORGET_AFTER_S,
    MAX_SESSIONS,
    SILENT_AFTER_S,
    SLICES,
    Alive,
    Connected,
    Disconnected,
    Event,
    OpenSession,
    PresenceState,
    SessionKey,
    alive_events,
    decode_event,
    encode_event,
)

OLD, NEW = SessionKey(1_000_000, "g1"), SessionKey(2_000_000, "g2")


def connected(session: SessionKey, device: str = "d") -> Connected:
    return Connected("o", device, session, 5)


def disconnected(session: SessionKey, device: str = "d") -> Disconnected:
    return Disconnected("o", device, session, 6)


def folded(*events: Event, at: float = 0.0) -> PresenceState:
    presence = PresenceState()
    for event in events:
        presence.apply(event, at)
    return presence


def test_events_have_a_documented_form() -> None:
    assert msgspec.json.decode(encode_event(connected(OLD))) == {
        "type": "connected",
        "owner": "o",
        "device": "d",
        "session": {"connectedUs": 1_000_000, "gateway": "g1"},
        "at": 5,
    }
    alive = Alive("g1", 7, [OpenSession("o", "d", 1_000_000)], [("o", 12)])
    assert msgspec.json.decode(encode_event(alive)) == {
        "type": "alive",
        "gateway": "g1",
        "at": 7,
        "sessions": [["o", "d", 1_000_000]],
        "accepted": [["o", 12]],
    }
    for event in (connected(OLD), disconnected(NEW), alive):
        assert decode_event(encode_event(event)) == event


@pytest.mark.parametrize(
    "payload", [b"", b"{}", b'{"type":"exploded"}', b'{"type":"alive","gateway":1,"at":1}', b"\xff"]
)
def test_what_is_no_event_is_refused(payload: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_event(payload)


def test_a_late_disconnect_does_not_end_a_newer_connect() -> None:
    presence = folded(connected(OLD), connected(NEW), disconnected(OLD))
    assert presence.connected("o", "d", 1)
    presence.apply(disconnected(NEW), 1)
    assert presence.devices(1) == set()


def test_a_connect_that_comes_after_its_own_disconnect_opens_nothing() -> None:
    assert folded(disconnected(OLD), connected(OLD)).devices(0) == set()
    repeated = folded(disconnected(OLD), Alive("g1", 1, [OpenSession("o", "d", OLD.connected_us)]))
    assert repeated.devices(0) == set()


def test_15_s_of_silence_end_a_gateways_devices_and_its_voice_brings_them_back() -> None:
    presence = folded(connected(OLD, "one"), connected(NEW, "other"))
    presence.apply(Alive("g2", 1), 10)
    assert presence.devices(SILENT_AFTER_S - 0.1) == {("o", "one"), ("o", "other")}
    assert presence.devices(SILENT_AFTER_S) == {("o", "other")}
    assert not presence.connected("o", "one", SILENT_AFTER_S)
    assert presence.connected("o", "other", SILENT_AFTER_S)
    presence.apply(Alive("g1", 1), 20)
    assert presence.devices(20) == {("o", "one"), ("o", "other")}


def test_a_late_subscriber_knows_every_session_after_30_s(rng: random.Random) -> None:
    sessions = [OpenSession("o", f"d-{number}", 1_700_000_000_000_000 + 7919 * number) for number in range(5000)]
    presence = PresenceState()
    start = rng.randrange(1000)
    for turn in range(start, start + SLICES):
        for event in alive_events("g", 1, sessions, turn):
            assert len(event.sessions) <= MAX_SESSIONS
            presence.apply(event, ALIVE_EVERY_S * (turn - start))
    assert len(presence.devices(ALIVE_EVERY_S * SLICES)) == 5000


def test_a_gateway_without_sessions_says_that_it_lives() -> None:
    assert list(alive_events("g", 1, [], 3)) == [Alive("g", 1, [])]


def test_a_session_whose_disconnect_was_lost_ends_when_it_is_not_repeated() -> None:
    presence = folded(connected(OLD))
    presence.apply(Alive("g1", 1), FORGET_AFTER_S - 1)
    assert presence.connected("o", "d", FORGET_AFTER_S - 1)
    presence.apply(Alive("g1", 1), FORGET_AFTER_S)
    assert not presence.connected("o", "d", FORGET_AFTER_S)


def test_what_is_forgotten_takes_no_memory() -> None:
    presence = PresenceState()
    for number in range(1000):
        presence.apply(connected(SessionKey(number, f"g{number}"), f"d-{number}"), 0)
        presence.apply(disconnected(SessionKey(-1 - number, "g"), f"d-{number}"), 0)
    presence.forget(FORGET_AFTER_S)
    assert (presence._open, presence._ended, presence._last_alive) == ({}, {}, {})


sessions_of_devices = st.sets(
    st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.sampled_from(["g1", "g2"])), max_size=12
)


@given(opened=sessions_of_devices, data=st.data())
def test_any_order_and_any_repetition_of_the_same_events_come_to_the_same_state(
    opened: set[tuple[str, int, str]], data: st.DataObject
) -> None:
    ended = data.draw(st.sets(st.sampled_from(sorted(opened)))) if opened else set()
    events: list[Event] = [connected(SessionKey(us, gateway), device) for device, us, gateway in opened]
    events += [disconnected(SessionKey(us, gateway), device) for device, us, gateway in ended]
    # What a gateway reported while a session was open may arrive late, too.
    events += [Alive(gateway, 1, [OpenSession("o", device, us)]) for device, us, gateway in opened]
    repeated = events + (data.draw(st.lists(st.sampled_from(events), max_size=10)) if events else [])
    presence = folded(*data.draw(st.permutations(repeated)), at=1.0)
    assert presence.devices(2.0) == {("o", device) for device, _, _ in opened - ended}
    presence.forget(2.0)
    assert presence.devices(2.0) == {("o", device) for device, _, _ in opened - ended}
