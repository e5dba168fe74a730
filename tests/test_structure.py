"""The import rules of CONTRIBUTING.md, held against the code."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHARED = {"access", "broker", "readings", "runtime"}
SERVICES = {"auth", "gateway", "persister", "reader", "simulator"}
PACKAGES = SHARED | SERVICES | {"onebox"}
ALLOWED = {
    "runtime": {"runtime"},
    "readings": {"runtime", "readings"},
    "access": {"runtime", "readings", "access"},
    "broker": {"runtime", "readings", "broker"},
    "onebox": PACKAGES,
    **{service: SHARED | {service} for service in SERVICES},
}


def imports_of(file: Path) -> set[str]:
    """Return the top-level packages that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import hides where a name comes from"
            found.add((node.module or "").split(".")[0])
    return found


def present() -> list[str]:
    return sorted(name for name in PACKAGES if (ROOT / name / "__init__.py").exists())


@pytest.mark.parametrize("package", present())
def test_a_package_imports_only_what_the_rules_allow(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        foreign = (imports_of(file) & PACKAGES) - ALLOWED[package]
        assert not foreign, f"{file.relative_to(ROOT)} imports {sorted(foreign)}"


@pytest.mark.parametrize("package", [name for name in present() if name in SERVICES])
def test_every_service_has_the_same_first_files(package: str) -> None:
    names = {file.name for file in (ROOT / package).glob("*.py")}
    assert {"__main__.py", "settings.py"} <= names
    lines = (ROOT / package / "__main__.py").read_text().splitlines()
    assert len(lines) <= 15, f"{package}/__main__.py is more than a handful of lines"


def test_no_file_grows_beyond_what_a_reader_holds_in_mind() -> None:
    for package in present():
        for file in (ROOT / package).rglob("*.py"):
            lines = len(file.read_text().splitlines())
            assert lines <= 300, f"{file.relative_to(ROOT)} has {lines} lines"


def test_the_driver_that_will_be_replaced_is_named_in_few_files() -> None:
    naming = {
        str(file.relative_to(ROOT))
        for package in present()
        for file in (ROOT / package).rglob("*.py")
        if "motor" in imports_of(file)
    }
    assert naming <= {"runtime/mongodb.py"}, naming
