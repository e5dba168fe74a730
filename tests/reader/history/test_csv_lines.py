"""CSV opened in a real spreadsheet: nothing in it is a formula, and its numbers are numbers."""

import asyncio
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from reader.history.csv_lines import as_text
from tests.reader.harness import DEVICE, TS, ReaderClient, Store, make_reading

TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
# The separator, the quote, UTF-8, from the first line on: https://wiki.documentfoundation.org/Documentation/DevGuide/Spreadsheet_Documents#Filter_Options_for_the_CSV_Filter
COMMA, SEMICOLON = "44,34,76,1", "59,34,76,1"
LINK = '=HYPERLINK("https://example.org/";"Log in again")'
FORMULAS = [
    *(
        LINK,
        "=1+1",
        "+1+1",
        "-1+1",
        "@SUM(1)",
        " =1+1",
        '"=1+1"',
        "\uff1d1+1",
        "\uff0b1",
        "\uff0d1",
        "\uff20a",
        "\u30fc1",
    ),
    *("\t=1+1", "\r=1+1", "\n=1+1", "\tx", "a,=1+1", "a;=1+1", 'a";=1+1', 'a;"=1+1', "a\n-1+1", "a;;=1+1", "-5"),
]
NUMBERS = [-5, -0.25, 5, 1e21]


class Cell:
    """A cell as a spreadsheet parsed it."""

    def __init__(self, element: ElementTree.Element) -> None:
        self.formula = element.get(f"{TABLE}formula")
        self.kind = element.get(f"{OFFICE}value-type")
        self.value = element.get(f"{OFFICE}value")
        self.text = "\n".join("".join(line.itertext()) for line in element.findall(f"{TEXT}p"))


async def opened(body: bytes, separator: str, folder: Path) -> list[list[Cell]]:
    """Open a file with LibreOffice and return its cells."""
    (folder / "export.csv").write_bytes(body)
    process = await asyncio.create_subprocess_exec(
        "soffice", f"-env:UserInstallation={(folder / 'profile').as_uri()}", "--headless",
        f"--infilter=Text - txt - csv (StarCalc):{separator}", "--convert-to", "fods", "--outdir", str(folder),
        str(folder / "export.csv"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(120):
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return list(rows_of(ElementTree.parse(folder / "export.fods").getroot()))  # noqa: S314 - LibreOffice's own


def rows_of(root: ElementTree.Element) -> Iterator[list[Cell]]:
    for row in root.iter(f"{TABLE}table-row"):
        cells = [Cell(cell) for cell in row.findall(f"{TABLE}table-cell")]
        if any(cell.kind for cell in cells):
            yield cells


async def filled(store: Store) -> None:
    """Store numbers, and formulas wherever a text is possible."""
    values = [*FORMULAS, *NUMBERS]
    await store.insert(*(make_reading(value, TS + number) for number, value in enumerate(values)))
    said: list[dict[str, Any]] = [{"unit": LINK[:20]}, {"location": LINK}, {"tags": {"a": ";=1+1"}}, {"unit": "-1"}]
    await store.insert(*(make_reading(1.5, TS + 1000 + number, **fields) for number, fields in enumerate(said)))


async def test_a_spreadsheet_finds_no_formula_in_the_file_for_people_and_its_numbers(
    reader_client: ReaderClient, store: Store, tmp_path: Path
) -> None:
    await filled(store)
    plain = await opened((await reader_client.readings(format="csv")).body, COMMA, tmp_path)
    assert any(cell.formula for row in plain for cell in row), "this test would not detect a formula"
    for separator in (COMMA, SEMICOLON):
        body = (await reader_client.readings(format="csv", for_="spreadsheet")).body
        rows = await opened(body, separator, tmp_path)
        assert [cell.text for row in rows for cell in row if cell.formula] == []
        if separator == COMMA:
            values = [row[4] for row in rows[1:]]
            assert {cell.kind for cell in values[: len(FORMULAS)]} == {"string"}
            numbers = values[len(FORMULAS) : len(FORMULAS) + len(NUMBERS)]
            assert [(cell.kind, float(cell.value or "nan")) for cell in numbers] == [("float", n) for n in NUMBERS]
            assert values[0].text == "'" + LINK


async def test_texts_that_are_formulas_are_marked_and_nothing_else_is_changed(
    reader_client: ReaderClient, store: Store
) -> None:
    await filled(store)
    harmless = ["idle", "1", "a-b", "a=b", "", "'=1", "x, y", '{"lat":-1.0,"lon":2.0}', "a; b"]
    await store.insert(*(make_reading(value, TS + 2000 + number) for number, value in enumerate(harmless)))
    await store.insert(make_reading(-7, TS, sensor="-1"), device="-device")

    async def cells(**query: str) -> list[list[str]]:
        body = (await reader_client.readings(format="csv", **query)).body.decode()
        return list(csv.reader(io.StringIO(body, newline=""), strict=True))

    plain, safe = await cells(), await cells(for_="spreadsheet")
    changed = [
        (before, after) for one, other in zip(plain, safe, strict=True)
        for before, after in zip(one, other, strict=True) if before != after
    ]  # fmt: skip
    texts = [LINK[:20], LINK, '{"a":";=1+1"}', "-1"]
    assert [before for before, _ in changed] == [*FORMULAS, *texts]
    assert all(after.replace("'", "") == before for before, after in changed)
    answer = await reader_client.readings("-device", "-1", format="csv", for_="spreadsheet")
    assert answer.body.decode().splitlines()[1].startswith('"\'-device","\'-1",2025-06-15T15:06:40.000Z,0,-7,')


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("=1", "'=1"),
        (" =1", "' =1"),
        ("\t", "'\t"),
        ("\t=1", "'\t'=1"),
        ("a,=1;-2", "a,'=1;'-2"),
        ('a;"+1', "a;'\"+1"),
        ("a\r\n@b", "a\r\n'@b"),
        ("a - b, c", "a - b, c"),
        ("20 \u2212 1", "20 \u2212 1"),
    ],
)
def test_an_apostrophe_stands_where_a_formula_would_begin(text: str, safe: str) -> None:
    assert as_text(text) == safe


async def test_for_spreadsheet_is_for_csv_and_says_so(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(make_reading(1, TS))
    for format_ in ("json", "ndjson"):
        assert (await reader_client.readings(format=format_, for_="spreadsheet")).invalid_fields == ["for"]
    assert (await reader_client.readings(for_="spreadsheet")).invalid_fields == ["for"]
    assert (await reader_client.readings(format="csv", for_="people")).invalid_fields == ["for"]
    query = {"device": DEVICE, "sensorType": "x", "for": "spreadsheet"}
    assert (await reader_client.fetch("/readings", query, headers={"Accept": "text/csv"})).status == 200
