"""The position where a reading was measured."""

from typing import Annotated

import msgspec


class Place(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A position: degrees north and east, metres up."""

    # The bounds only describe the schema. The code that takes a place from outside checks them, once.
    lat: Annotated[float, msgspec.Meta(extra_json_schema={"minimum": -90, "maximum": 90})]
    lon: Annotated[float, msgspec.Meta(extra_json_schema={"minimum": -180, "maximum": 180})]
    alt: float | None = None
