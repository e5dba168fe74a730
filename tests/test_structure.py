"""The rules of CONTRIBUTING.md on packages, modules and names, checked against the code."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHARED = ("runtime", "readings", "storage", "access", "broker", "database")
SERVICES = ("alarms", "auth", "gateway", "persister", "reader", "simulator")
PACKAGES = (*SHARED, *SERVICES, "onebox", "device")
DEVELOPMENT = ("bench", "testing", "tests", "tools")
# From the bottom up: a package imports itself and those below it. Services do not import each other.
ALLOWED = {
    "runtime": {"runtime"},
    "readings": {"runtime", "readings"},
    "storage": {"runtime", "readings", "storage"},
    "access": {"runtime", "readings", "access"},
    "broker": {"runtime", "readings", "access", "broker"},
    "database": {"runtime", "database"},
    "onebox": set(PACKAGES) - {"device"},
    # For devices elsewhere: it is installed without the rest.
    "device": {"device"},
    **{service: {*SHARED, service} for service in SERVICES},
}
# Only these start an app; everything else is a part of it.
ENTRY_POINTS = {"__main__.py", "command.py"}
MAX_LINES = 300

# Metaphors in place of the field's terms, as successive words of a name: `give_back` also forbids `GiveBack`. The
# glossary in docs/architecture.md has the terms.
METAPHORS = (
    "accuse|allowance|aside|beside|bury|buried|burials?|chores?|doomed|guessing|guilty?|hears?|heard|intake|landed"
    "|letters?|let_go|parcels?|seldom|sift|sifter|sifting|spared?|stands?|standing|stood|tells?|told"
    "|undertake|undertakers?|undertaking|upkeep|until_gone|give_back|take_back"
)
BANNED_IN_TEXT = re.compile(f"_(?:{METAPHORS})_")
# Fine in a sentence, but not as a name: a message is retried or requeued, not held; a batch lingers for LINGER_S.
BANNED_IN_NAMES = re.compile(f"_(?:{METAPHORS}|holding|moment_s)_")
BANNED_FUNCTIONS = {"wrong"}
# Terms of the field that contain one of these words, and names of libraries.
TERMS = ("dead_letter", "dead_letters", "DeadLetter", "DEAD_LETTER", "dead letter", "dead letters", "dead-letter")
LIBRARY_NAMES = {"tell"}  # file.tell()
LOG_METHODS = {"debug", "info", "warning", "error", "critical", "exception"}


def modules(*packages: str) -> list[Path]:
    return sorted(file for package in packages for file in (ROOT / package).rglob("*.py"))


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def name_of(file: Path) -> str:
    """Return a module's dotted name."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def shown(file: Path) -> str:
    return str(file.relative_to(ROOT))


MODULES = {name_of(file): file for file in modules(*PACKAGES, *DEVELOPMENT)}


@cache
def imports_of(file: Path) -> frozenset[str]:
    """Return the dotted names of all modules that a file imports, anywhere in it, also for types only."""
    found: set[str] = set()
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{shown(file)}: a relative import hides where a name comes from"
            source = node.module or ""
            for alias in node.names:
                member = f"{source}.{alias.name}"
                found.add(member if member in MODULES else source)
    return frozenset(found)


def packages_of(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imports_of(file)}


def test_no_modules_import_each_other_in_a_cycle() -> None:
    graph = {name: imports_of(file) & MODULES.keys() - {name} for name, file in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_the_rules_allow(package: str) -> None:
    for file in modules(package):
        foreign = (packages_of(file) & {*PACKAGES, *DEVELOPMENT}) - ALLOWED[package]
        assert not foreign, f"{shown(file)} imports {sorted(foreign)}"


def test_development_packages_build_on_each_other_in_one_direction() -> None:
    forbidden = {"testing": {"bench", "tests", "tools"}, "tools": {"bench", "tests", "testing"}, "bench": {"tests"}}
    for package, above in forbidden.items():
        for file in modules(package):
            assert not packages_of(file) & above, f"{shown(file)} imports {sorted(packages_of(file) & above)}"


def test_an_app_is_imported_only_by_what_starts_it() -> None:
    for package in PACKAGES:
        for file in modules(*PACKAGES):
            if f"{package}.app" in imports_of(file) and file.name not in ENTRY_POINTS:
                assert file.parent == ROOT / "onebox", f"{shown(file)} imports {package}.app"


def test_a_test_module_imports_no_other() -> None:
    found = {
        f"{shown(file)} imports {name}"
        for file in modules("tests")
        for name in imports_of(file)
        if name.startswith("tests.") and name.rsplit(".", 1)[1].startswith("test_")
    }
    assert found == set()


@pytest.mark.parametrize("package", SERVICES)
def test_every_service_has_the_same_first_files(package: str) -> None:
    names = {file.name for file in (ROOT / package).glob("*.py")}
    assert {"__main__.py", "settings.py"} <= names
    lines = (ROOT / package / "__main__.py").read_text().splitlines()
    assert len(lines) <= 15, f"{package}/__main__.py is more than a handful of lines"


@pytest.mark.parametrize("package", [*PACKAGES, "testing", "tools"])
def test_no_module_is_longer_than_a_reader_can_keep_in_mind(package: str) -> None:
    lengths = {shown(file): len(file.read_text().splitlines()) for file in modules(package)}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_the_driver_that_will_be_replaced_is_named_in_one_file() -> None:
    naming = {shown(file) for file in modules(*PACKAGES) if "motor" in packages_of(file)}
    assert naming <= {"runtime/mongodb.py"}, naming


def test_runtime_knows_nothing_of_telemetry() -> None:
    words = re.compile(r"_(readings?|devices?|sensors?|telemetry|gateway|persister|owners?)_")
    naming = {
        name for file in modules("runtime") for name in identifiers(tree_of(file)) if words.search(words_of(name))
    }
    transports = {"pause_reading", "resume_reading"}  # asyncio's
    assert naming - transports == set()


def identifiers(tree: ast.AST) -> Iterator[str]:
    """Yield every name in the code: of definitions, arguments, attributes, keywords and imports."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield name
            case ast.alias(name=name, asname=other):
                yield other or name.rsplit(".", 1)[-1]


def logged(tree: ast.AST) -> Iterator[str]:
    """Yield the text of every log call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOG_METHODS:
            receiver = node.func.value
            name = receiver.attr if isinstance(receiver, ast.Attribute) else getattr(receiver, "id", "")
            if name in ("log", "_log", "logger", "audit_log") and node.args:
                yield " ".join(
                    part.value
                    for part in ast.walk(node.args[0])
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                )


def words_of(text: str) -> str:
    """Return the words of a name or a sentence in lower case, between underscores: `_dead_letter_`."""
    for term in TERMS:
        text = text.replace(term, " ")
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", text)
    return f"_{re.sub(r'[^a-z0-9]+', '_', split.lower()).strip('_')}_"


def banned_names(tree: ast.AST) -> set[str]:
    names = set(identifiers(tree)) - LIBRARY_NAMES
    return {name for name in names if BANNED_IN_NAMES.search(words_of(name))}


def banned_logs(tree: ast.AST) -> list[str]:
    return [text for text in logged(tree) if BANNED_IN_TEXT.search(words_of(text))]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_name_is_a_metaphor(package: str) -> None:
    found = {shown(file): names for file in modules(package) if (names := sorted(banned_names(tree_of(file))))}
    assert found == {}
    defined = {getattr(node, "name", "") for file in modules(package) for node in ast.walk(tree_of(file))}
    assert defined & BANNED_FUNCTIONS == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_no_log_line_is_a_metaphor(package: str) -> None:
    found = {shown(file): lines for file in modules(package) if (lines := banned_logs(tree_of(file)))}
    assert found == {}


def test_no_file_name_is_a_metaphor() -> None:
    files = [shown(file) for file in modules(*PACKAGES, *DEVELOPMENT)]
    assert [file for file in files if BANNED_IN_NAMES.search(words_of(file))] == []


@pytest.mark.parametrize(
    "code",
    ["def undertake(): ...", "class BurialQueue: ...", "x.giveBack()", "f(upkeep=1)", "from a import sifter", "letter"],
)
def test_a_banned_name_is_found(code: str) -> None:
    assert banned_names(ast.parse(code))


def test_a_banned_word_in_a_log_line_is_found() -> None:
    assert banned_logs(ast.parse('log.info(f"{name} was put aside, for now.", n=1)'))
    assert not banned_logs(ast.parse('log.info("A dead letter was parked at the moment.", told=1)'))


def test_the_field_s_own_terms_are_not_banned() -> None:
    code = "class DeadLetter: ...\ndef dead_letters(): DEAD_LETTERS.x()\nfile.tell()"
    assert banned_names(ast.parse(code)) == set()
