"""Messages that can never be stored, published past the gateways, and whether each one is among the dead letters."""

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
# Deeper than MongoDB takes a document.
TOO_DEEP = 190
READINGS_A_MESSAGE = 2
_numbers = count()

# What must be in the dead letters: the bytes of each letter, and its reason.
Expected = dict[bytes, str]


def no_reading() -> bytes:
    """A document, but no reading's."""
    return bson.encode({"poison": next(_numbers)})


def refused_reading() -> bytes:
    """A reading's document that MongoDB refuses."""
    document = encode_document("poison", "poison", Reading("poison", 1, next(_numbers), 0, 1))
    value: Any = 1
    for _ in range(TOO_DEEP):
        value = {"a": value}
    return bson.encode(bson.decode(document, AS_MILLISECONDS) | {"value": value})


def undecodable(_: Sender) -> tuple[Message, Expected]:
    """No message of ours at all."""
    body = b"\x10\x00\x00\x00 no message %d" % next(_numbers)
    return Message(body), {body: "undecodable"}


def no_reading_inside(sender: Sender) -> tuple[Message, Expected]:
    """A good message, but for one document in its middle."""
    first, second = sender.published_past_the_gateway(READINGS_A_MESSAGE)
    bad = no_reading()
    return Message.of([first, bad, second]), {bad: "undecodable"}


def refused_inside(sender: Sender) -> tuple[Message, Expected]:
    """A good message, but for one reading in its middle that MongoDB refuses."""
    first, second = sender.published_past_the_gateway(READINGS_A_MESSAGE)
    bad = refused_reading()
    return Message.of([first, bad, second]), {bad: "refused"}


KINDS = (undecodable, no_reading_inside, refused_inside)


def mixed(fleet: Fleet, messages: int, one_in: int) -> Iterator[tuple[Message, Expected]]:
    """Give messages of which one in so many is poison, of each kind in turn."""
    for number in range(messages):
        sender = fleet.senders[number % len(fleet.senders)]
        if number % one_in == one_in // 2:
            yield KINDS[number // one_in % len(KINDS)](sender)
        else:
            yield Message.of(sender.published_past_the_gateway(READINGS_A_MESSAGE)), {}


async def publish(url: str, messages: Iterator[tuple[Message, Expected]]) -> Expected:
    """Publish them all, confirmed; return what must be in the dead letters."""
    expected: Expected = {}
    async with open_broker(url) as broker, broker.publisher() as publisher:
        for message, letters in messages:
            await publisher.publish(message, READINGS_EXCHANGE)
            expected |= letters
    return expected


async def arrived(url: str, expected: Expected) -> None:
    """Return when every letter is there with its reason; AssertionError when one is not in time."""
    async with open_broker(url) as broker:
        deadline = asyncio.get_running_loop().time() + ARRIVES_WITHIN_S
        while missing := expected.items() - (await _looked(broker)).items():
            assert asyncio.get_running_loop().time() < deadline, (
                f"{len(missing)} of {len(expected)} are no dead letters"
            )
            await asyncio.sleep(0.2)


async def any_arrived(url: str, expected: Expected) -> bool:
    """Say whether any of these letters is there."""
    async with open_broker(url) as broker:
        return bool(expected.items() & (await _letters(broker)).items())


async def _looked(broker: Broker) -> Expected:
    """Return what is there, or nothing where the look was cut off: by a consumer time-out of a few seconds."""
    try:
        return await _letters(broker)
    except BrokerUnavailable:
        return {}


async def _letters(broker: Broker) -> Expected:
    async with broker.browser(DEAD_LETTERS) as browser:
        return {letter.message.body: str(letter.message.headers.get("x-reason")) async for letter in browser}
