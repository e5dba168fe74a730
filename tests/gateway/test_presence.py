"""What a gateway broadcasts about its devices, combined as a reader does it."""

import asyncio
from collections.abc import Sequence

from broker.embedded.broker import EmbeddedBroker
from broker.presence import SLICES, Alive, Connected, Disconnected, Event, PresenceState, decode_event
from broker.topology import PRESENCE_EXCHANGE
from gateway.presence import PresenceBroadcaster
from testing.waiting import eventually
from tests.gateway.fakes import FakeBroker, RecordingBroadcaster
from tests.gateway.harness import ISSUING, gateway


def folded(events: Sequence[Event], now: float = 0.0) -> PresenceState:
    picture = PresenceState()
    for event in events:
        picture.apply(event, now)
    return picture


def events_of(broadcasts: RecordingBroadcaster) -> list[Event]:
    return [decode_event(payload) for payload in broadcasts.payloads]


async def test_a_device_is_announced_when_it_comes_and_when_it_goes(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker) as running:
        async with running.connected({"token": ISSUING.device()}):
            assert folded(events_of(fake_broker.broadcasts)).devices(0) == {("user-1", "device-1")}

        async def gone() -> bool:
            return not folded(events_of(fake_broker.broadcasts)).devices(0)

        await eventually(gone, "its end is announced")
        await running.refusal({"token": "none"})
        kinds = [type(event) for event in events_of(fake_broker.broadcasts) if not isinstance(event, Alive)]
        assert kinds == [Connected, Disconnected]


async def test_every_device_is_reported_disconnected_when_its_gateway_stops(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker) as running, running.unconnected(), running.raw() as socket:
        await socket.receive_str(timeout=5)
    assert not folded(events_of(fake_broker.broadcasts)).devices(0)


async def test_a_late_disconnect_does_not_end_a_newer_connection_elsewhere() -> None:
    broadcasts = RecordingBroadcaster()
    one, other = PresenceBroadcaster(broadcasts, "gw-1"), PresenceBroadcaster(broadcasts, "gw-2")
    old = one.connected("o", "d")
    other.connected("o", "d")
    one.disconnected(old)
    assert folded(events_of(broadcasts)).devices(0) == {("o", "d")}


async def test_connect_times_of_one_gateway_are_all_different() -> None:
    presence = PresenceBroadcaster(RecordingBroadcaster(), "gw")
    times = [presence.connected("o", "d").connected_us for _ in range(1000)]
    assert len(set(times)) == 1000
    assert times == sorted(times)


async def test_a_listener_that_comes_late_knows_every_session_after_all_slices() -> None:
    broadcasts = RecordingBroadcaster()
    async with PresenceBroadcaster(broadcasts, "gw", alive_every_s=0.01).broadcasting() as presence:
        for number in range(100):
            presence.connected("o", f"d-{number}")
        broadcasts.payloads.clear()

        async def round_complete() -> bool:
            return len(broadcasts.payloads) >= SLICES

        await eventually(round_complete, "a round of alive")
    picture = folded(events_of(broadcasts))
    assert len(picture.devices(0)) == 100
    assert picture.devices(16) == set(), "15 s without a word: its devices are gone"


async def test_a_real_subscriber_receives_it(embedded: EmbeddedBroker) -> None:
    picture = PresenceState()
    async with embedded.subscriber(PRESENCE_EXCHANGE, bound=100) as subscriber, gateway(embedded) as running:

        async def listen() -> None:
            async for payload in subscriber:
                picture.apply(decode_event(payload), 0)

        listening = asyncio.ensure_future(listen())

        async def connected() -> bool:
            return picture.connected("user-1", "device-1", 0)

        async def disconnected() -> bool:
            return not picture.connected("user-1", "device-1", 0)

        async with running.connected({"token": ISSUING.device()}):
            await eventually(connected, "the device is seen")
        await eventually(disconnected, "its end is seen")
        listening.cancel()
