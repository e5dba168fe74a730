"""Both paths acknowledge alike; every event gets one acknowledgement, and only published readings are accepted."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from access.revocations import RevocationKeys
from broker.interface import BrokerUnavailable
from gateway.ingest import Ack, EventHandler
from gateway.lanes import Lanes
from gateway.limits.connections import ConnectionLimits
from gateway.metrics import GatewayMetrics
from gateway.session import Session
from gateway.settings import GatewaySettings
from gateway.socket.events import reading_event
from gateway.socket.fast_path import FastPath
from gateway.socket.packets import DevicePacket
from gateway.to_broker import ToBroker
from readings.reading import Defaults
from tests.gateway.fakes import FakePublisher

PAYLOADS = st.one_of(
    st.sampled_from(["{}", "[]", "null", '{"value":1}', '{"value":1,"ts":1750000000000}', "[1", "", " "]),
    st.sampled_from(['[{"value":1},{"value":"x"}]', '[{"value":1},7]', '{"value":1},{"value":2}', "[],[]", '"', "1]"]),
    st.sampled_from(['{"value":1,"value":2}', '[{"value":1},{"value":1,"value":2},{"value":3}]', '{"value":"\\""}']),
    st.sampled_from(['{"value":1,"unit":"\\u0000"}', '[{"value":1,"tags":{"a":"b","a":"b"}},{"value":2}]']),
    st.sampled_from(['{"value":NaN}', '{"value":"\\ud800"}', '{"value":"\u00e9"}', "[0]]"]),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.sampled_from(["value", "ts", "seq", "unit", "x"]), inner, max_size=3),
        ),
        max_leaves=6,
    ).map(json.dumps),
)
NAMES = st.sampled_from(['"reading"', '"readings"', '"read\\u0069ng"', ' "reading"', '"Reading"', '"reading" ', "1"])
IDS = st.sampled_from(["", "0", "1", "42", "007", "9" * 18, "9" * 19, "-1", " 1"])
ENDS = st.sampled_from(["]", "", "]]", "] ", ",]"])
FRAMES = st.builds(lambda number, name, payload, end: f"42{number}[{name},{payload}{end}", IDS, NAMES, PAYLOADS, ENDS)


class Edge:
    """An event handler over a fake publisher, without sockets."""

    def __init__(self, **chosen: Any) -> None:
        self.publisher = FakePublisher()
        metrics = GatewayMetrics(CollectorRegistry())
        self.to_broker = ToBroker(self.publisher, metrics, slots=2, max_waiting_bytes=20_000)
        given_settings = GatewaySettings(broker_url="embedded://unused", auth_url="http://unused", **chosen)
        lanes = Lanes(self.to_broker, None, metrics)
        self.event_handler = EventHandler(lanes, metrics, given_settings, defaultdict(int))
        quota = ConnectionLimits(given_settings).acquire_session("owner", "device", "127.0.0.1")
        revocation_keys = RevocationKeys("jti", "owner", 0, None, "device", "key-1")
        self.session = Session("owner", "device", "127.0.0.1", Defaults("t"), revocation_keys, 0, quota, lambda _: True)
        self.written: list[bytes] = []

    def write(self, frame: bytes) -> None:
        self.written.append(frame[2:] if frame[1] < 126 else frame[4:] if frame[1] == 126 else frame[10:])


def plainly(edge: Edge, frame: str) -> None:
    """What python-socketio does with an event."""
    try:
        packet: Any = DevicePacket(encoded_packet=frame[1:])
    except ValueError:
        return

    def on_ack(ack: Ack) -> None:
        if packet.id is not None:
            answered = DevicePacket(3, [ack], id=packet.id)
            edge.written.append(b"4" + answered.encode().encode())

    edge.event_handler.handle(edge.session, packet.data[1], on_ack)


@given(frame=FRAMES)
@settings(max_examples=400, deadline=None)
def test_the_plain_path_answers_alike_what_the_fast_path_handles(frame: str) -> None:
    if reading_event(frame.encode()) is None:
        return
    assert asyncio.run(outcome(quickly, frame)) == asyncio.run(outcome(plainly, frame))


def quickly(edge: Edge, frame: str) -> None:
    assert FastPath(edge.event_handler).handle(edge, edge.session, frame.encode())


async def outcome(path: Callable[[Edge, str], None], frame: str) -> tuple[list[bytes], int]:
    edge = Edge()
    edge.publisher.auto_confirm = True
    async with edge.to_broker.running():
        path(edge, frame)
    return edge.written, sum(edge.publisher.sizes)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("one"), st.sampled_from([1, None, "x"])),
        st.tuples(st.just("many"), st.lists(st.sampled_from([1, None]), max_size=30)),
        st.tuples(st.just("odd"), st.sampled_from(["nothing", "", "connect"])),
        st.tuples(st.sampled_from(["confirm", "fail", "turn"]), st.none()),
    ),
    max_size=60,
)


@given(steps=STEPS, bound=st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_every_event_has_one_answer_and_what_is_accepted_is_published(steps: list[tuple[str, Any]], bound: int) -> None:
    asyncio.run(exchange(steps, bound))


async def exchange(steps: list[tuple[str, Any]], bound: int) -> None:
    edge = Edge(max_in_flight_events=bound)
    path, number, open_from = FastPath(edge.event_handler), 0, 0
    failed: set[int] = set()
    async with edge.to_broker.running():
        for step, payload in steps:
            if step in ("one", "many", "odd"):
                name = {"one": "reading", "many": "readings"}.get(step, payload)
                body = {"value": payload} if step != "many" else [{"value": value} for value in payload]
                frame = f"42{number}{json.dumps([name, body], separators=(',', ':'))}"
                if not path.handle(edge, edge.session, frame.encode()):
                    plainly(edge, frame)
                number += 1
            elif open_from < len(edge.publisher.confirms) and step == "confirm":
                edge.publisher.confirm(open_from)
                open_from += 1
            elif open_from < len(edge.publisher.confirms) and step == "fail":
                edge.publisher.fail(open_from, BrokerUnavailable("away"))
                failed.add(open_from)
                open_from += 1
            for _ in range(5):
                await asyncio.sleep(0)
            assert edge.session.in_flight_events <= bound
        edge.publisher.confirm_all()
    answers = [frame.removeprefix(b"43").partition(b"[") for frame in edge.written]
    assert sorted(int(found[0]) for found in answers) == list(range(number))
    accepted = sum(json.loads(b"[" + found[2])[0].get("accepted", 0) for found in answers)
    confirmed = sum(size for index, size in enumerate(edge.publisher.sizes) if index not in failed)
    assert accepted == confirmed
    assert (edge.session.in_flight_events, edge.session.in_flight_bytes) == (0, 0)
    assert await edge.event_handler.drain(0.1) == 0
