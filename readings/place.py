"""Where a reading was measured."""

from typing import Annotated

import msgspec


class Place(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A position: degrees north and east, metres up."""

    # Bounds only described, so that nothing is looked at twice: whoever takes a place from outside checks them.
    lat: Annotated[float, msgspec.Meta(extra_json_schema={"minimum": -90, "maximum": 90})]
    lon: Annotated[float, msgspec.Meta(extra_json_schema={"minimum": -180, "maximum": 180})]
    alt: float | None = None
