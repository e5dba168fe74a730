"""FILE → TEXT: plain or gzipped, and which of the forms it has. Raises ReplayError."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Literal, TextIO, cast

from simulator.errors import ReplayError
from simulator.replay.file import Replay

Form = Literal["table", "ndjson", "parquet"]

_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_OTHERS = {b"PK\x03\x04": "a ZIP archive", b"(\xb5/\xfd": "compressed with Zstandard", b"BZh": "compressed with bzip2"}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def form_of(replay: Replay) -> Form:
    """Return the form of a file, by its first bytes."""
    with readable(replay), _open(replay) as file:
        start = file.read(4096)
    if start.startswith(_PARQUET):
        if _is_gzipped(replay):
            raise replay.error("a Parquet file must not be gzipped, as its end is read first: gunzip it")
        return "parquet"
    for mark, what in _OTHERS.items():
        if start.startswith(mark):
            raise replay.error(f"the file is {what}: decompress it, or compress it with gzip")
    if start.startswith(_UTF16) and "16" not in replay.text.encoding:
        raise replay.error("the file is not UTF-8 but UTF-16: --encoding utf-16")
    return "ndjson" if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") else "table"


@contextmanager
def open_text(replay: Replay) -> Iterator[TextIO]:
    """Open the file as text, with its line ends as they are."""
    encoding = replay.text.encoding
    encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    with _open(replay) as file, io.TextIOWrapper(file, encoding=encoding, newline="") as text:
        yield text


@contextmanager
def readable(replay: Replay) -> Iterator[None]:
    """Turn the errors of reading into ReplayError."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ReplayError(f"{replay.path}: the gzip file is cut off or broken: {error}") from error
    except OSError as error:
        raise ReplayError(f"{replay.path}: {error.strerror or error}") from error


def _open(replay: Replay) -> BinaryIO:
    return cast("BinaryIO", gzip.open(replay.path)) if _is_gzipped(replay) else replay.path.open("rb")


def _is_gzipped(replay: Replay) -> bool:
    with replay.path.open("rb") as file:
        return file.read(2) == _GZIP
