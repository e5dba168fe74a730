"""The edge of MongoDB's driver: its errors become WriteFailed."""

from collections.abc import Iterator
from contextlib import contextmanager

from pymongo.errors import PyMongoError

from persister.to_mongodb import WriteFailed


@contextmanager
def failing() -> Iterator[None]:
    """Raise WriteFailed in place of what the driver raises."""
    try:
        yield
    except PyMongoError as error:
        raise WriteFailed(f"{type(error).__name__}: {str(error)[:300]}") from error
