"""Documents that are encoded already, for the driver."""


class RawBson:
    """Encoded documents, marked so that the driver's encoder takes their bytes as they are."""

    __slots__ = ("raw",)
    _type_marker = 101

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
