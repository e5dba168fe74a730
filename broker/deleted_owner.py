"""The message that an owner was deleted: persisters then erase the owner's readings. Handling it twice is harmless."""

import bson
import msgspec
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.errors import InvalidBSON

from broker.message import DecodeError, Message
from runtime.times import CALENDAR_MS

_AS_MILLISECONDS: CodecOptions[dict[str, object]] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)


class DeletedOwner(msgspec.Struct, frozen=True):
    """An owner whose account was deleted; `deleted_at_ms` is milliseconds since 1970."""

    owner: str
    deleted_at_ms: int

    def message(self) -> Message:
        """Return the message to publish: BSON `{owner, deletedAt}`."""
        return Message(bson.encode({"owner": self.owner, "deletedAt": DatetimeMS(self.deleted_at_ms)}))

    @classmethod
    def of(cls, message: Message) -> "DeletedOwner":
        """Decode a message; DecodeError when it is malformed or of a newer schema than this worker's."""
        message.check_schema()
        try:
            fields = bson.decode(message.body, _AS_MILLISECONDS)
        except (InvalidBSON, UnicodeDecodeError) as error:
            raise DecodeError("undecodable", f"not BSON: {error}", message.body) from error
        owner, deleted_at = fields.get("owner"), fields.get("deletedAt")
        if not isinstance(owner, str) or not owner or not isinstance(deleted_at, DatetimeMS):
            raise DecodeError("undecodable", "owner or deletedAt is missing", message.body)
        if int(deleted_at) not in CALENDAR_MS:
            raise DecodeError("undecodable", f"deletedAt is beyond the calendar: {int(deleted_at)} ms", message.body)
        return cls(owner, int(deleted_at))
