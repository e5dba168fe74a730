"""The recipes of docs/recipes.md that read an export, run on one of a real reader."""

import asyncio
import csv
import os
import re
from pathlib import Path

import pytest

from broker.embedded.broker import EmbeddedBroker
from tests.docs import proxies, tokens
from tests.docs.origin import origin
from tests.docs.pages import block, page, section, write_file
from tests.docs.venv import python_with
from tests.reader.harness import DEVICE, SENSOR, TS, Mongo, make_reading, open_store, user_token

PAGE = "recipes.md"
# The hours in which TS and those after it are.
FIRST, SECOND = "2025-06-15 15:00", "2025-06-15 16:00"
HOUR_MS = 3_600_000
PROXIES = ("nginx", "Caddy", "HAProxy", "Apache")
PROGRAMS = {"pandas": ("pandas", "pyarrow"), "polars": ("polars",), "DuckDB": ("duckdb",)}


def tried(package: str) -> str:
    """Return the requirement with the version that the page names as tried."""
    found = re.search(rf"[( ]{package} (\d[\d.]*\d)", page(PAGE))
    assert found, package
    return f"{package}=={found[1]}"


async def run(*command: str, folder: Path, **environment: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env={**os.environ, **environment}, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(100):
        out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


@pytest.fixture
async def exported(tmp_path: Path, mongodb_database: Mongo) -> Path:
    """The folder of an export of readings of every type."""
    async with open_store(mongodb_database) as store:
        await store.insert(*(make_reading(value, TS + n) for n, value in enumerate((1, 2.5, True, "text"))))
        await store.insert(*(make_reading(value, TS + HOUR_MS + n) for n, value in enumerate((20, 21))))
        await store.insert(make_reading("text", TS, sensor="state"), make_reading(7.5, TS, sensor="power"))
    async with (
        EmbeddedBroker.open_at(tmp_path / "queue.db") as broker,
        origin(broker, mongodb_database) as port,
    ):
        environment = {"URL": f"http://127.0.0.1:{port}", "TOKEN": user_token()}
        await run("sh", "-ec", block(PAGE, "An export as Parquet"), folder=tmp_path, **environment)
    return tmp_path


# Recipes that are on other pages: their headings there, which other tests run.
ELSEWHERE = {
    "Verifying tokens in Python": (tokens.PAGE, tokens.PYTHON.values()),
    "Verifying tokens in Node.js": (tokens.PAGE, [tokens.JAVASCRIPT]),
    **{f"{name} in front": (proxies.PAGE, [proxies.HEADINGS[name.lower()]]) for name in PROXIES},
}


@pytest.mark.parametrize(("recipe", "where"), ELSEWHERE.items(), ids=ELSEWHERE)
def test_a_recipe_on_another_page_is_one_that_is_run_there(recipe: str, where: tuple[str, list[str]]) -> None:
    other, headings = where
    for heading in headings:
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        assert f"({other}#{anchor})" in section(PAGE, recipe)
        assert block(other, heading)


def test_each_recipe_has_a_test() -> None:
    run_here = {*PROGRAMS, "An export as Parquet", "Telegraf", "Line protocol with curl"}
    headings = re.findall(r"^## (.*)$", page(PAGE), re.MULTILINE)
    assert headings[-1] == "On other pages"
    assert set(headings[:-1]) == run_here | ELSEWHERE.keys()
    assert {name.lower() for name in PROXIES} == proxies.PROGRAMS.keys()


async def test_pandas_polars_and_duckdb_read_an_export(exported: Path) -> None:
    expected = [
        (DEVICE, "power", FIRST, 7.5),
        (DEVICE, SENSOR, FIRST, 1.75),
        (DEVICE, SENSOR, SECOND, 20.5),
    ]
    for heading, packages in PROGRAMS.items():
        python = python_with(*map(tried, packages))
        script = write_file(exported, "recipe.py", block(PAGE, heading))
        _, *rows = csv.reader((await run(python, str(script), folder=exported)).split("\n"))
        found = [(row[0], row[1], row[2].replace("T", " ")[:16], float(row[3])) for row in rows if row]
        assert found == expected, heading
