"""The body of `POST /readings` as OpenAPI describes it. The reader's answer is derived from `Attributes`."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from readings.place import Place
from readings.reading import GENERATED_SEQ_START, ID_PATTERN, MAX_TAGS, MAX_TEXT, MAX_UNIT, Quality
from runtime.http.fields import ONE_LINE, ONE_LINE_RULE
from runtime.http.wording import rule

Id = Annotated[str, Meta(pattern=f"^{ID_PATTERN.pattern}$", extra=rule("1 to 64 of A-Z a-z 0-9 _ . : -"))]
_Text = Annotated[str, Meta(max_length=MAX_TEXT, pattern=ONE_LINE, extra=ONE_LINE_RULE)]


class ReadingSent(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """One reading. `sensorType` and `location` default to those of a device's token, `ts` to the time of receipt.

    `value` is finite; an integer has at most 64 bits. Text has no control characters, and no name appears twice. `ts`
    is milliseconds since 1970, or RFC 3339 with a zone and at most three decimals; not before 2000, at most 24 h ahead;
    a leap second (`23:59:60` at the end of a month in UTC) is stored as the second after it, `.000`. `seq`, allowed
    only with `ts`, distinguishes the readings of one series within a millisecond; it is below 2^52, because gateways
    assign the numbers from there on.

    A reading may also be sent in the form that `GET /readings` returns. `device` must then be the sender's, or the
    reading is rejected (`forbidden`). `receivedAt`, a time like `ts`, marks a reading that was accepted before: its
    `seq` may be one that a gateway assigned, it takes no location from a token, and it needs its `ts`. `receivedAt` is
    not stored: the reading gets a new time of receipt.
    """

    # Only described, never decoded: a reading that breaks a rule is rejected alone, by readings/reading.py.
    value: Annotated[bool | int | float | _Text, Meta(examples=[21.5])]
    sensor_type: Annotated[Id, Meta(examples=["temperature"])] | UnsetType = UNSET
    ts: int | str | UnsetType = UNSET
    seq: Annotated[int, Meta(ge=0, lt=2 * GENERATED_SEQ_START)] | UnsetType = UNSET
    unit: Annotated[str, Meta(max_length=MAX_UNIT, pattern=ONE_LINE, extra=ONE_LINE_RULE)] | UnsetType = UNSET
    location: _Text | Place | UnsetType = UNSET
    tags: Annotated[dict[Id, _Text], Meta(max_length=MAX_TAGS)] | UnsetType = UNSET
    quality: Quality | UnsetType = UNSET
    device: Id | UnsetType = UNSET
    received_at: int | str | UnsetType = UNSET
