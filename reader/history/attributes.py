"""The attributes of columns: decoded from the bytes that many readings share, each time once."""

from collections.abc import Iterable, Sequence

import bson

from reader.responses import AS_STORED, Document

# A coordinate that was taken out of a location, as JSON: see `storage.codec.columns.Columns`.
_ZERO = b"0.0"


def is_moving(tail: bytes) -> bool:
    """Return whether the coordinates of the location are in `places`."""
    return tail[0] == 1


def attributes_of(tails: Iterable[bytes]) -> list[Document]:
    """Return the attributes of tails as documents have them; coordinates that are in `places` are zeros."""
    whole = [b"%b%b\x00" % ((len(tail) + 4).to_bytes(4, "little"), tail[1:]) for tail in tails]
    return bson.decode_all(b"".join(whole), AS_STORED)


def around_coordinates(location: bytes) -> list[bytes]:
    """Return what is before, between and after the coordinates in the JSON of a location with zeros."""
    return location.split(_ZERO)


def with_coordinates(parts: Sequence[bytes], coordinates: Sequence[Sequence[bytes]]) -> list[bytes]:
    """Return the text of each reading: coordinates, one list each of latitudes, longitudes and maybe altitudes."""
    first, second, third = parts[:3]
    if len(parts) == 3:
        return [b"%b%b%b%b%b" % (first, lat, second, lon, third) for lat, lon in zip(*coordinates[:2], strict=True)]
    last = parts[3]
    return [
        b"%b%b%b%b%b%b%b" % (first, lat, second, lon, third, alt, last)
        for lat, lon, alt in zip(*coordinates, strict=True)
    ]
