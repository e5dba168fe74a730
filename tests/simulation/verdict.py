"""What has to be true at the end of a run, whatever happened."""

from collections.abc import Iterable, Iterator
from typing import Any

import bson

from broker.message import Message
from readings.collections import SERIES
from readings.document import AS_MILLISECONDS
from readings.keys import series_key
from tests.simulation.device import DeviceProgram, Sent
from tests.simulation.documents import id_bytes_of
from tests.simulation.places import Copy, copies
from tests.simulation.world import Run


def faults_of(run: Run, dead_letters: list[Message], *, is_drained: bool) -> Iterator[str]:
    """Yield what is not as promised: nothing, if all is well."""
    dead = {bson.decode(one)["value"] for message in dead_letters for one in message.documents()}
    yield from run.errors
    yield from run.broker.errors
    if not is_drained:
        waiting = {device.name: device._device.pending if device._device else "down" for device in run.devices}
        yield f"readings are stuck: pending {waiting}, messages {run.broker.unsettled}"
    found = copies(run.mongodb)
    winners = {identity: _winner(several) for identity, several in found.items()}
    sent = {sent.number: (device, sent) for device in run.devices for sent in device.plan}
    stored: dict[int, bytes] = {}
    for identity, winner in winners.items():
        document = bson.decode(winner.document, AS_MILLISECONDS)
        number = document["value"]
        if number in stored:
            yield f"{number} is stored twice"
        stored[number] = identity
        yield from _foreign(number, document, sent)
        first = run.mongodb.first.get(identity)
        if first is not None and first != winner.document:
            yield f"{number} has taken the place of {bson.decode(first, AS_MILLISECONDS)['value']}, which was first"
    yield from _unlisted(run, winners)
    for device, one in sent.values():
        yield from _dead(one, dead) if one.is_refused or one.number in dead else _missing(device, one, stored)


def _winner(several: list[Copy]) -> Copy:
    return min(several, key=lambda copy: copy.seal)


def _foreign(number: int, document: dict[str, Any], sent: dict[int, tuple[DeviceProgram, Sent]]) -> Iterator[str]:
    key = document["_id"]
    if number not in sent or not sent[number][1].begun:
        yield f"{number} is stored and was never sent"
        return
    device, one = sent[number]
    if (key["owner"], key["device"], key["sensorType"]) != (*device.identity, one.sensor_type):
        yield f"{number} is stored as another series: {key}"
    if not one.is_valid:
        yield f"{number} is stored and was rejected"


def _unlisted(run: Run, identities: Iterable[bytes]) -> Iterator[str]:
    """Yield the series of which readings are stored and that no list of series has."""
    listed = run.mongodb.majority_view(SERIES)
    keys = [bson.decode(identity, AS_MILLISECONDS) for identity in identities]
    names = {(key["owner"], key["device"], key["sensorType"]) for key in keys}
    for owner, device, sensor_type in sorted(names):
        if id_bytes_of(series_key(owner, device, sensor_type)) not in listed:
            yield f"the series {sensor_type} of {owner}/{device} has readings and is not listed"


def _dead(one: Sent, dead: set[int]) -> Iterator[str]:
    if not one.is_refused:
        yield f"{one.number} is a dead letter and was not refused"
    elif one.taken and one.number not in dead:
        yield f"{one.number} was refused by MongoDB and is no dead letter"


def _missing(device: DeviceProgram, one: Sent, stored: dict[int, bytes]) -> Iterator[str]:
    if not one.taken:
        return
    if not one.is_valid:
        if one.number not in device.rejected:
            yield f"{one.number} is not valid and was not rejected"
        return
    if one.number in device.rejected:
        yield f"{one.number} was rejected and is valid"
    if one.number not in stored and (one.twin is None or one.twin not in stored):
        yield f"{one.number} was taken by {device.name} and is not stored"
