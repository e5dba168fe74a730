"""Dead letters as text: a table for people, one JSON object a line for programs, and one letter in full."""

import json
from collections.abc import Iterator
from typing import Any

from bson import json_util

from broker.operator.dead_letters import DeadLetter
from readings.document import DocumentError, decode_document, split_documents

COLUMNS = ("ID", "REASON", "SERVICE", "FIRST SEEN", "READINGS", "OWNER", "DEVICE", "BYTES", "REPLAYS", "ERROR")
# Of an id, the owner's too, the beginning is enough to tell it; a device is told by its whole name.
SHORT = 8
WIDTHS = (SHORT, 14, 10, 24, 8, SHORT, 36, 8, 7, 60)
# Right-aligned: the numbers.
_NUMBERS = {4, 7, 8}
# Of bytes that do not decode, this many are shown; `--json` gives all.
SHOWN_BYTES = 2048


def table_head() -> str:
    """Return the names of the columns."""
    return _line(COLUMNS)


def table_row(letter: DeadLetter) -> str:
    """Return one letter as a line; what is too long is cut."""
    found = letter.summary()
    return _line(
        (
            found["id"][:SHORT],
            found["reason"],
            found["service"],
            found["firstSeen"] or "-",
            found["readings"] or "-",
            (found["owner"] or "-")[:SHORT],
            found["device"] or "-",
            found["bytes"],
            found["replays"],
            found["error"] or "-",
        )
    )


def json_row(letter: DeadLetter) -> str:
    """Return one letter's summary as a line of JSON."""
    return json.dumps(letter.summary(), ensure_ascii=False)


def in_full(letter: DeadLetter) -> Iterator[str]:
    """Give a letter's headers and its documents as lines, or its bytes in hex where they do not decode."""
    for name, value in letter.summary().items():
        if value is not None:
            yield f"{name}: {_printable(str(value))}"
    yield "headers:"
    for name, text in sorted(letter.message.headers.items()):
        yield f"  {name}: {_printable(str(text))}"
    documents = _documents(letter.message.body)
    if documents is not None:
        yield f"documents: {len(documents)}"
        for document in documents:
            yield "  " + json_util.dumps(document, json_options=json_util.RELAXED_JSON_OPTIONS, ensure_ascii=False)
        return
    body = letter.message.body
    yield f"bytes (the first {SHOWN_BYTES} of {len(body)}):" if len(body) > SHOWN_BYTES else "bytes:"
    for at in range(0, min(len(body), SHOWN_BYTES), 16):
        piece = body[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        yield f"  {at:08x}  {piece.hex(' '):47}  {text}"


def in_full_json(letter: DeadLetter) -> str:
    """Return a letter as one JSON object: its summary, headers, and documents or all its bytes in hex."""
    documents = _documents(letter.message.body)
    found = {**letter.summary(), "headers": dict(letter.message.headers)}
    found |= {"bodyHex": letter.message.body.hex()} if documents is None else {"documents": documents}
    return json_util.dumps(found, json_options=json_util.RELAXED_JSON_OPTIONS, ensure_ascii=False)


def _documents(body: bytes) -> list[dict[str, Any]] | None:
    try:
        return [decode_document(document) for document in split_documents(body)] or None
    except DocumentError:
        return None


def _line(cells: tuple[object, ...]) -> str:
    shown = []
    for number, (cell, width) in enumerate(zip(cells, WIDTHS, strict=True)):
        text = _printable(str(cell))
        text = text if len(text) <= width else text[: width - 1] + "…"
        shown.append(text.rjust(width) if number in _NUMBERS else text.ljust(width))
    return "  ".join(shown).rstrip()


def _printable(text: str) -> str:
    """Replace what could steer a terminal: names and errors come from strangers."""
    return "".join(char if char.isprintable() else "?" for char in text)
