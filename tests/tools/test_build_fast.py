"""Without what compiling needs, nothing is built, and what is missing is named; a build is whole, or not there."""

import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest

from runtime.compiled import digest
from tools import build_fast


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a build would go."""
    monkeypatch.setattr(build_fast, "FOLDER", tmp_path / "compiled")
    return tmp_path / "compiled"


def without_compiler(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    return "there is no C compiler (no-such-compiler)"


def without_headers(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CC", "sh")
    monkeypatch.setattr(sysconfig, "get_path", lambda _: "/nowhere")
    return "Python's headers are not installed"


def without_mypy(monkeypatch: pytest.MonkeyPatch) -> str:
    def version(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setenv("CC", "sh")
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    monkeypatch.setattr(metadata, "version", version)
    return "mypy is not installed (requirements/build.txt)"


def with_another_setuptools(monkeypatch: pytest.MonkeyPatch) -> str:
    pins = build_fast.required_versions(build_fast.REQUIREMENTS.read_text())
    monkeypatch.setenv("CC", "sh")
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    monkeypatch.setattr(metadata, "version", (pins | {"setuptools": "65.5.0"}).__getitem__)
    return f"setuptools 65.5.0 is installed, not {pins['setuptools']} (requirements/build.txt)"


@pytest.mark.parametrize("missing", [without_compiler, without_headers, without_mypy, with_another_setuptools])
def test_what_is_missing_is_named_and_nothing_is_built(
    missing: Callable[[pytest.MonkeyPatch], str],
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    what = missing(monkeypatch)
    assert (build_fast.main([]), build_fast.main(["--if-possible"])) == (1, 0)
    assert capsys.readouterr().err.splitlines() == [f"Nothing is compiled: {what}"] * 2
    assert not folder.exists()


@pytest.mark.parametrize("cc", ["", " "])
def test_an_empty_cc_stands_for_the_compiler_of_python(
    cc: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", cc)
    monkeypatch.setenv("PATH", "/nowhere")
    assert build_fast.main([]) == 1
    assert capsys.readouterr().err.startswith("Nothing is compiled: there is no C compiler (")


def test_what_is_compiled_is_there() -> None:
    missing = [module for module in build_fast.MODULES if not (build_fast.ROOT / build_fast.path_of(module)).is_file()]
    assert missing == []


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """What was compiled."""
    made = tmp_path / "library"
    (made / "gateway").mkdir(parents=True)
    (made / "gateway" / "ingest.so").write_text("new")
    return made


def files_in(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def test_a_build_takes_the_place_of_the_one_before(library: Path, folder: Path) -> None:
    for text in ("first", "second"):
        (library / "gateway" / "ingest.so").write_text(text)
        build_fast.install(library)
        assert files_in(folder) == {"gateway/ingest.so": text}
    assert sorted(file.name for file in folder.parent.iterdir()) == ["compiled", "library"]


def test_an_edit_during_a_build_has_no_part_in_it(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, module = tmp_path / "project", "module" + EXTENSION_SUFFIXES[0]
    (root / "gateway").mkdir(parents=True)
    monkeypatch.setattr(build_fast, "CONFIGURATION", ())
    (root / "gateway" / "ingest.py").write_text("of the start")
    monkeypatch.setattr(build_fast, "ROOT", root)
    monkeypatch.setattr(build_fast, "MODULES", ("gateway.ingest",))
    monkeypatch.setattr(build_fast, "sources_of", lambda _: [Path("gateway/ingest.py")])

    def compiler(command: list[str], *, cwd: Path, **_: Any) -> "subprocess.CompletedProcess[str]":
        (root / "gateway" / "ingest.py").write_text("edited")
        made = Path(command[-1]) / "lib"
        made.mkdir()
        (made / module).write_bytes((cwd / "gateway" / "ingest.py").read_bytes())
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", compiler)
    assert build_fast.build().sources == {"gateway/ingest.py": digest(b"of the start")}
    assert (folder / module).read_text() == "of the start"


def test_an_interrupted_build_leaves_the_one_before(
    library: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_fast.install(library)

    def copytree(source: Path, target: Path) -> None:
        target.mkdir()
        (target / "manifest.json").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copytree", copytree)
    with pytest.raises(KeyboardInterrupt):
        build_fast.install(library)
    assert files_in(folder) == {"gateway/ingest.so": "new"}
    assert sorted(file.name for file in folder.parent.iterdir()) == ["compiled", "library"]


def test_a_build_that_cannot_be_written_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build() -> Any:
        raise OSError(30, "Read-only file system", "build")

    monkeypatch.setattr(build_fast, "require_tools", lambda: None)
    monkeypatch.setattr(build_fast, "build", build)
    assert (build_fast.main([]), build_fast.main(["--if-possible"])) == (1, 1)
    assert capsys.readouterr().err.splitlines()[0] == (
        "The build cannot be written: [Errno 30] Read-only file system: 'build'"
    )
