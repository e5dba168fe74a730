"""docs/importing.md names the options that there are, and shows what is printed."""

import re
import shlex
from pathlib import Path

from simulator.import_command import import_parser
from tests.docs.pages import page
from tests.simulator.replay.checked import file, report_of

PAGE = "importing.md"
# The file that the page's report is of.
PLANT = [
    "sep=;",
    "Messstelle: Halle 3;;",
    "",
    "Datum;Uhrzeit;Druck [bar];Temp. (\u00b0C);Zustand",
    "31.01.2026;23:45;1,5;20,25;an",
]


def options() -> set[str]:
    return {option for action in import_parser()._actions for option in action.option_strings}


def test_every_option_is_explained_and_no_other() -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page(PAGE)))
    assert named - options() == {"--replay"}
    assert options() - named == {"-h", "--help", "--version", "--password"}


def test_every_example_is_a_command_line() -> None:
    rows = re.findall(r"^\| [^|]+ \| `(--[^|]+)` \|$", page(PAGE).partition("## Examples")[2], re.MULTILINE)
    assert len(rows) == 6
    for row in rows:
        given = import_parser().parse_args([__file__, *shlex.split(row)])
        assert any(value is not None and value is not False for name, value in vars(given).items() if name != "files")


async def test_what_is_printed_is_as_the_page_shows(tmp_path: Path) -> None:
    (shown,) = re.findall(r"^```\n(plant\.csv: semicolon.*?)^```$", page(PAGE), re.DOTALL | re.MULTILINE)
    report = await report_of(file(tmp_path / "plant.csv", *PLANT))
    assert [f"plant.csv: {line}" for line in report.splitlines()] == shown.splitlines()
