"""What a connection receives: deliveries and confirms of some channels are taken out, the rest is the driver's."""

import random
import struct
from collections.abc import Iterator

import pamqp.frame
import pytest
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from broker.headers import RECEIPTS_HEADER, SCHEMA_HEADER
from broker.message import Headers, Message
from broker.rabbitmq.address import parse_hosts
from broker.rabbitmq.connector import Candidate, _Transport
from broker.rabbitmq.incoming import HEARTBEAT_FRAME, FrameSplitter
from broker.rabbitmq.properties import decode_message

OURS, OTHER = 1, 2
PROPERTIES = commands.Basic.Properties(content_type="application/bson", headers={"x-schema": 1}, message_id="0" * 32)


class Received:
    """Keeps what arrives on a channel."""

    def __init__(self) -> None:
        self.all: list[tuple[object, ...]] = []

    def on_delivery(self, tag: int, properties: bytes, body: bytes) -> None:
        self.all.append((tag, properties, body))

    def on_confirm(self, tag: int, *, multiple: bool, accepted: bool) -> None:
        self.all.append((tag, multiple, accepted))

    def on_cancelled(self) -> None:
        self.all.append(("cancelled",))


def content(
    channel: int,
    method: commands.Basic.Deliver | commands.Basic.GetOk | commands.Basic.Return,
    body: bytes,
    piece_bytes: int,
) -> bytes:
    """Return the frames of a method that carries a message."""
    pieces = [ContentBody(body[at : at + piece_bytes]) for at in range(0, len(body), piece_bytes)]
    parts = [method, ContentHeader(0, len(body), PROPERTIES), *pieces]
    return b"".join(pamqp.frame.marshal(part, channel) for part in parts)


def deliver(channel: int, tag: int, body: bytes, piece_bytes: int = 100) -> bytes:
    """Return the frames of a delivery."""
    return content(channel, commands.Basic.Deliver("ctag1.0", tag, False, "readings", "q"), body, piece_bytes)


def returned(channel: int) -> bytes:
    """Return the frames of a returned message."""
    return content(channel, commands.Basic.Return(312, "NO_ROUTE", "readings", "q"), b"nobody's", 100)


def cut(data: bytes, random_: random.Random) -> Iterator[bytes]:
    """Yield the data as a network may deliver them."""
    while data:
        size = random_.choice((1, 2, 7, 40, 5000))
        yield data[:size]
        data = data[size:]


@pytest.mark.parametrize("seed", range(20))
def test_however_the_network_cuts_them_each_frame_goes_where_it_belongs(seed: int) -> None:
    random_ = random.Random(seed)
    splitter, received = FrameSplitter(), Received()
    stream, others = b"", b""
    expected: list[tuple[object, ...]] = []
    for tag in range(1, 60):
        kind = random_.randrange(5)
        body = random_.randbytes(random_.choice((0, 1, 99, 100, 101, 1000)))
        if kind == 0:
            frames = deliver(OURS, tag, body)
            expected.append((tag, PROPERTIES.marshal(), body))
        elif kind == 1:
            multiple, accepted = random_.random() < 0.5, random_.random() < 0.5
            answer = commands.Basic.Ack(tag, multiple) if accepted else commands.Basic.Nack(tag, multiple, False)
            frames = pamqp.frame.marshal(answer, OURS)
            expected.append((tag, multiple, accepted))
        else:
            frames = random_.choice(
                (
                    deliver(OTHER, tag, body),
                    pamqp.frame.marshal(commands.Basic.Ack(tag), OTHER),
                    pamqp.frame.marshal(commands.Basic.CancelOk("ctag1.0"), OURS),
                    pamqp.frame.marshal(commands.Basic.QosOk(), OURS),
                    content(OURS, commands.Basic.GetOk(tag, False, "readings", "q", 0), body, 100),
                    pamqp.frame.marshal(Heartbeat(), 0),
                )
            )
            others += frames
        stream += frames
    splitter.take_over(OURS, received)
    assert b"".join(splitter.feed(piece) for piece in cut(stream, random_)) == others
    assert received.all == expected


def test_what_comes_before_a_channel_is_taken_over_is_the_drivers() -> None:
    splitter, received = FrameSplitter(), Received()
    opened = pamqp.frame.marshal(commands.Channel.OpenOk(), OURS)
    half = pamqp.frame.marshal(commands.Basic.ConsumeOk("ctag1.0"), OURS)
    assert splitter.feed(opened + half[:5]) == opened
    splitter.take_over(OURS, received)
    assert splitter.feed(half[5:] + deliver(OURS, 1, b"one")) == half
    assert [one[0] for one in received.all] == [1]


def test_a_cancellation_is_told_before_what_comes_behind_it_and_to_the_driver_too() -> None:
    splitter, received = FrameSplitter(), Received()
    splitter.take_over(OURS, received)
    cancel = pamqp.frame.marshal(commands.Basic.Cancel("ctag1.0", True), OURS)
    assert splitter.feed(deliver(OURS, 1, b"one") + cancel + deliver(OURS, 2, b"two")) == cancel
    assert [one[0] for one in received.all] == [1, "cancelled", 2]


def test_what_the_broker_sends_on_a_channel_that_it_has_closed_is_not_received() -> None:
    splitter, received = FrameSplitter(), Received()
    splitter.take_over(OURS, received)
    closed = pamqp.frame.marshal(commands.Channel.Close(406, "PRECONDITION_FAILED", 0, 0), OURS)
    late = deliver(OURS, 2, b"two")
    assert splitter.feed(deliver(OURS, 1, b"one") + closed + late) == closed + late
    assert [one[0] for one in received.all] == [1]


def test_from_a_returned_message_on_the_driver_gets_all_confirms() -> None:
    splitter, received = FrameSplitter(), Received()
    splitter.take_over(OURS, received)
    acks = [pamqp.frame.marshal(commands.Basic.Ack(tag), OURS) for tag in (1, 2, 3)]
    assert splitter.feed(acks[0] + returned(OURS) + acks[1]) == returned(OURS) + acks[1]
    assert splitter.feed(acks[2]) == acks[2]
    assert received.all == [(1, False, True)]


async def test_a_driver_that_gets_nothing_else_hears_that_the_node_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = _Transport(Candidate(parse_hosts("amqp://127.0.0.1")[0], "127.0.0.1"))
    transport.splitter.take_over(OURS, Received())
    assert transport.received(deliver(OURS, 1, b"one")) == b""
    monkeypatch.setattr("broker.rabbitmq.connector.HEARTBEAT_TO_DRIVER_S", -1.0)
    assert transport.received(deliver(OURS, 2, b"two")) == HEARTBEAT_FRAME
    half = deliver(OURS, 3, b"three")[:-3]
    assert transport.received(half) == HEARTBEAT_FRAME  # the frames in front of the one that is cut
    assert transport.received(b"ee") == b""  # a frame that never ends is no sign of life
    assert transport.received(bytes((0xCE,)) + HEARTBEAT_FRAME[:3]) == HEARTBEAT_FRAME
    assert transport.received(HEARTBEAT_FRAME[3:]) == HEARTBEAT_FRAME


async def test_a_driver_that_is_still_shaking_hands_hears_no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = _Transport(Candidate(parse_hosts("amqp://127.0.0.1")[0], "127.0.0.1"))
    monkeypatch.setattr("broker.rabbitmq.connector.HEARTBEAT_TO_DRIVER_S", -1.0)
    start = pamqp.frame.marshal(commands.Connection.Start(), 0)
    assert transport.received(start[:20]) == b""
    assert transport.received(start[20:]) == start


@pytest.mark.parametrize("bad", [b"AMQP\0\0\x09\x01", b"\x01\0\x01\0\0\0\x01xy", b"HTTP/1.1 400 Bad Request\r\n"])
def test_bytes_that_are_no_frames_are_the_drivers_to_refuse(bad: bytes) -> None:
    splitter = FrameSplitter()
    splitter.take_over(OURS, Received())
    assert splitter.feed(HEARTBEAT_FRAME + bad) + splitter.feed(b"more") == HEARTBEAT_FRAME + bad + b"more"


@pytest.mark.parametrize(
    "properties",
    [
        PROPERTIES,
        commands.Basic.Properties(headers={SCHEMA_HEADER: 1, RECEIPTS_HEADER: "0-3"}, message_id="f" * 32),
        commands.Basic.Properties(headers={SCHEMA_HEADER: 1, "x-delivery-count": 3}, message_id="f" * 32),
        commands.Basic.Properties(headers={SCHEMA_HEADER: 1}, message_id="a" * 31),
        commands.Basic.Properties(headers={SCHEMA_HEADER: 1}, message_id="a" + " " * 40),
        commands.Basic.Properties(headers={SCHEMA_HEADER: 1}, message_id="a" * 32, app_id="b" * 32),
        commands.Basic.Properties(headers={SCHEMA_HEADER: 1}, message_id="0" * 32, app_id="b" * 32),
        commands.Basic.Properties(headers={SCHEMA_HEADER: 1}, correlation_id="b" * 32),
        commands.Basic.Properties(headers={SCHEMA_HEADER: 1, "x-text": "ü"}, message_id="é" * 16),
        commands.Basic.Properties(),
    ],
)
def test_properties_are_decoded_as_the_driver_decodes_them(properties: commands.Basic.Properties) -> None:
    for _ in range(2):  # the second time what stands in front of the id is known
        message, delivery_count = decode_message(properties.marshal(), b"body")
        assert message.message_id == (properties.message_id or "")
        headers = dict(properties.headers or {})
        assert delivery_count == headers.pop("x-delivery-count", 0)
        assert message.headers == headers
        assert message.body == b"body"


@pytest.mark.parametrize("length", range(1, 32))
def test_a_short_id_behind_a_text_with_spaces_is_not_taken_for_one_of_ours(length: int) -> None:
    # A space is also the byte that stands in front of an id of 32.
    headers: Headers = {"x-note": " " * 32, SCHEMA_HEADER: 1}
    properties = commands.Basic.Properties(headers={**headers}, message_id="a" * length)
    assert decode_message(properties.marshal(), b"") == (Message(b"", headers, "a" * length), 0)


DEEP = 3000
NESTED = b"\1a" + b"".join(b"A" + struct.pack(">I", 5 * (DEEP - level)) for level in range(DEEP + 1))


@pytest.mark.parametrize(
    "properties",
    [
        PROPERTIES.marshal()[:-32] + b"\xff" * 32,  # an id that is no UTF-8, behind what is known and what is not
        b"\0\x80\x01\xff",
        b"\0\x40" + b"\x7f" * 8,  # a time behind the year 9999
        b"\x20\0\0\0\0\3\1aZ",  # a header of an unknown type
        b"\x20\0" + struct.pack(">I", len(NESTED)) + NESTED,
        b"\x20\0\0\0",
        b"",
    ],
)
def test_a_message_whose_properties_cannot_be_decoded_arrives_without_any(properties: bytes) -> None:
    decode_message(PROPERTIES.marshal(), b"")
    assert decode_message(properties, b"body") == (Message(b"body", {}, ""), 0)


def test_a_delivery_count_that_is_a_text_is_the_publishers_and_counts_nothing() -> None:
    properties = commands.Basic.Properties(headers={"x-delivery-count": "often", SCHEMA_HEADER: 1}, message_id="f" * 32)
    assert decode_message(properties.marshal(), b"") == (Message(b"", {SCHEMA_HEADER: 1}, "f" * 32), 0)
