"""Messages that can never be stored, published past the gateways, and the check that each is dead-lettered."""

import asyncio
from collections.abc import Iterator
from itertools import count
from typing import Any

import bson

from broker.connect import open_broker
from broker.interface import Broker, BrokerUnavailable
from broker.message import Message
from broker.topology import DEAD_LETTERS, READINGS_EXCHANGE
from readings.document import AS_MILLISECONDS, encode_document
from readings.reading import Reading
from tests.faults.fleet import Fleet, Sender

ARRIVES_WITHIN_S = 30.0
# Nested more deeply than MongoDB allows.
TOO_DEEP = 190
READINGS_A_MESSAGE = 2
_numbers = count()

# What must be in the dead-letter queue: the bytes of each dead letter, and its reason.
Expected = dict[bytes, str]


def no_reading() -> bytes:
    """Return a document that is not a reading."""
    return bson.encode({"poison": next(_numbers)})


def refused_reading() -> bytes:
    """Return a reading's document that MongoDB refuses."""
    document = encode_document("poison", "poison", Reading("poison", 1, next(_numbers), 0, 1))
    value: Any = 1
    for _ in range(TOO_DEEP):
        value = {"a": value}
    return bson.encode(bson.decode(document, AS_MILLISECONDS) | {"value": value})


def undecodable(_: Sender) -> tuple[Message, Expected]:
    """A message that does not decode at all."""
    body = b"\x10\x00\x00\x00 no message %d" % next(_numbers)
    return Message(body), {body: "undecodable"}


def no_reading_inside(sender: Sender) -> tuple[Message, Expected]:
    """A good message with one document in its middle that is not a reading."""
    first, second = sender.published_past_the_gateway(READINGS_A_MESSAGE)
    bad = no_reading()
    return Message.of([first, bad, second]), {bad: "undecodable"}


def refused_inside(sender: Sender) -> tuple[Message, Expected]:
    """A good message with one reading in its middle that MongoDB refuses."""
    first, second = sender.published_past_the_gateway(READINGS_A_MESSAGE)
    bad = refused_reading()
    return Message.of([first, bad, second]), {bad: "refused"}


KINDS = (undecodable, no_reading_inside, refused_inside)


def mixed(fleet: Fleet, messages: int, one_in: int) -> Iterator[tuple[Message, Expected]]:
    """Yield messages of which one in `one_in` is poison, each kind in turn."""
    for number in range(messages):
        sender = fleet.senders[number % len(fleet.senders)]
        if number % one_in == one_in // 2:
            yield KINDS[number // one_in % len(KINDS)](sender)
        else:
            yield Message.of(sender.published_past_the_gateway(READINGS_A_MESSAGE)), {}


async def publish(url: str, messages: Iterator[tuple[Message, Expected]]) -> Expected:
    """Publish all of them, confirmed; return what must be in the dead-letter queue."""
    expected: Expected = {}
    async with open_broker(url) as broker, broker.publisher() as publisher:
        for message, dead_letters in messages:
            await publisher.publish(message, READINGS_EXCHANGE)
            expected |= dead_letters
    return expected


async def arrived(url: str, expected: Expected) -> None:
    """Return once every dead letter is there with its reason; AssertionError if one is late."""
    async with open_broker(url) as broker:
        deadline = asyncio.get_running_loop().time() + ARRIVES_WITHIN_S
        while missing := expected.items() - (await _dead_letters_or_none(broker)).items():
            assert asyncio.get_running_loop().time() < deadline, (
                f"{len(missing)} of {len(expected)} are not dead-lettered"
            )
            await asyncio.sleep(0.2)


async def any_arrived(url: str, expected: Expected) -> bool:
    """Return whether any of these dead letters is there."""
    async with open_broker(url) as broker:
        return bool(expected.items() & (await _dead_letters(broker)).items())


async def _dead_letters_or_none(broker: Broker) -> Expected:
    """Return what is there, or nothing if browsing was cut off by a consumer time-out of a few seconds."""
    try:
        return await _dead_letters(broker)
    except BrokerUnavailable:
        return {}


async def _dead_letters(broker: Broker) -> Expected:
    async with broker.browser(DEAD_LETTERS) as browser:
        return {one.message.body: str(one.message.headers.get("x-reason")) async for one in browser}
