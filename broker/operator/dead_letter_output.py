"""Formats dead letters: a table for people, one JSON object per line for programs, and one dead letter in full."""

import json
from collections.abc import Iterator
from typing import Any

from bson import json_util

from broker.operator.dead_letters import DeadLetter
from readings.document import DocumentError, decode_document, split_documents

COLUMNS = ("ID", "REASON", "SERVICE", "FIRST SEEN", "READINGS", "OWNER", "DEVICE", "BYTES", "REPLAYS", "ERROR")
# The first characters identify an id, the owner's too; a device's name is shown whole.
SHORT = 8
WIDTHS = (SHORT, 14, 10, 24, 8, SHORT, 36, 8, 7, 60)
# Right-aligned: the numbers.
_NUMBERS = {4, 7, 8}
# How much of a body that does not decode is shown; `--json` shows all of it.
SHOWN_BYTES = 2048


def table_head() -> str:
    """Return the heading line."""
    return _line(COLUMNS)


def table_row(dead_letter: DeadLetter) -> str:
    """Return one dead letter as a line; cells that are too long are cut."""
    found = dead_letter.summary()
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


def json_row(dead_letter: DeadLetter) -> str:
    """Return one dead letter's summary as a line of JSON."""
    return json.dumps(dead_letter.summary(), ensure_ascii=False)


def full_lines(dead_letter: DeadLetter) -> Iterator[str]:
    """Yield the headers and documents of a dead letter as lines; its bytes in hex if they do not decode."""
    for name, value in dead_letter.summary().items():
        if value is not None:
            yield f"{name}: {_printable(str(value))}"
    yield "headers:"
    for name, text in sorted(dead_letter.message.headers.items()):
        yield f"  {name}: {_printable(str(text))}"
    documents = _documents(dead_letter.message.body)
    if documents is not None:
        yield f"documents: {len(documents)}"
        for document in documents:
            yield "  " + json_util.dumps(document, json_options=json_util.RELAXED_JSON_OPTIONS, ensure_ascii=False)
        return
    body = dead_letter.message.body
    yield f"bytes (the first {SHOWN_BYTES} of {len(body)}):" if len(body) > SHOWN_BYTES else "bytes:"
    for at in range(0, min(len(body), SHOWN_BYTES), 16):
        piece = body[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        yield f"  {at:08x}  {piece.hex(' '):47}  {text}"


def full_json(dead_letter: DeadLetter) -> str:
    """Return a dead letter as one JSON object: summary, headers, and documents or all bytes in hex."""
    documents = _documents(dead_letter.message.body)
    found = {**dead_letter.summary(), "headers": dict(dead_letter.message.headers)}
    found |= {"bodyHex": dead_letter.message.body.hex()} if documents is None else {"documents": documents}
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
    """Replace characters that could control a terminal: names and errors are untrusted."""
    return "".join(char if char.isprintable() else "?" for char in text)
