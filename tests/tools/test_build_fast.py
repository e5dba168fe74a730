"""Without what compiling needs, nothing is built, and what is missing is named."""

import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

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


def without_mypyc(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CC", "sh")
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    monkeypatch.setattr(build_fast, "find_spec", lambda _: None)
    return "mypyc is not installed (requirements/build.txt)"


@pytest.mark.parametrize("missing", [without_compiler, without_headers, without_mypyc])
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


def test_what_is_compiled_is_there() -> None:
    missing = [module for module in build_fast.MODULES if not (build_fast.ROOT / build_fast.path_of(module)).is_file()]
    assert missing == []
