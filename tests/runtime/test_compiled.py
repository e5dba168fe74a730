"""Compiled modules are loaded only while they fit; why they are not used is known, and logged once."""

import importlib
import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from runtime import compiled
from runtime.compiled import MANIFEST, VARIABLE, Manifest, digest, ignored_because, is_compiled, use_compiled
from runtime.process import warn_of_ignored
from tools.build_fast import MODULES, path_of, sources_of

SOURCE = "gateway/ingest.py"
REQUIRED = os.environ[VARIABLE] == "required"


@pytest.fixture(autouse=True)
def _as_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_state", compiled._State())
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setenv(VARIABLE, "auto")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project of one source."""
    (tmp_path / "gateway").mkdir()
    (tmp_path / SOURCE).write_text("pass\n")
    return tmp_path


def built(root: Path, **changes: Any) -> Path:
    """Return a build of that source, whose library and module are no more than text."""
    folder = root / "build"
    folder.mkdir()
    suffix = EXTENSION_SUFFIXES[0]
    files = {"not_there.module": "module" + suffix, "library": "library" + suffix}
    for file in files.values():
        (folder / file).write_text("no machine code")
    digests = dict.fromkeys(files.values(), digest(b"no machine code"))
    manifest = Manifest(suffix, files, "library", digests, {SOURCE: digest(b"pass\n")})
    (folder / MANIFEST).write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, **changes)))
    return folder


def why_ignored(folder: Path, root: Path) -> str:
    finders = list(sys.meta_path)
    use_compiled(folder, root)
    assert sys.meta_path == finders
    return ignored_because()


def test_without_a_build_nothing_is_loaded_and_nothing_is_said(root: Path) -> None:
    assert why_ignored(root / "build", root) == ""
    assert not is_compiled()
    with capture_logs() as lines:
        warn_of_ignored()
    assert lines == []


def test_a_build_is_ignored_when_a_source_has_changed(root: Path) -> None:
    folder = built(root)
    (root / SOURCE).write_text("pass \n")
    assert why_ignored(folder, root) == f"{SOURCE} has changed since they were built"
    with capture_logs() as lines:
        warn_of_ignored()
    assert [(line["log_level"], line["why"]) for line in lines] == [("warning", ignored_because())]


def test_a_build_is_ignored_when_a_source_is_gone(root: Path) -> None:
    folder = built(root)
    (root / SOURCE).unlink()
    assert why_ignored(folder, root) == f"{SOURCE} cannot be read: No such file or directory"


def test_a_build_of_another_interpreter_is_ignored(root: Path) -> None:
    assert "are built for .cpython-27.so, this is" in why_ignored(built(root, suffix=".cpython-27.so"), root)


def test_a_build_that_does_not_load_is_ignored(root: Path) -> None:
    assert why_ignored(built(root), root).startswith("they cannot be loaded: ")


def test_a_build_that_comes_too_late_is_ignored(root: Path) -> None:
    file = "library" + EXTENSION_SUFFIXES[0]
    assert why_ignored(built(root, files={"os": file}), root) == "os was imported before"


@pytest.mark.parametrize("name", ["library", "module"])
def test_a_build_without_one_of_its_files_is_ignored(root: Path, name: str) -> None:
    folder, file = built(root), name + EXTENSION_SUFFIXES[0]
    (folder / file).unlink()
    assert why_ignored(folder, root) == f"{file} of the build cannot be read: No such file or directory"


@pytest.mark.parametrize("content", [b"no machine", bytes(len("no machine code"))])
@pytest.mark.parametrize("name", ["library", "module"])
def test_a_build_one_of_whose_files_was_cut_off_or_has_lost_its_content_is_ignored(
    root: Path, name: str, content: bytes
) -> None:
    folder, file = built(root), name + EXTENSION_SUFFIXES[0]
    (folder / file).write_bytes(content)
    assert why_ignored(folder, root) == f"{file} of the build is not whole"


def test_a_build_that_this_user_may_not_read_is_ignored(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = built(root)

    def refuse(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # tests may run as root, whom no mode keeps out
    assert why_ignored(folder, root) == f"{folder / MANIFEST} cannot be read: Permission denied"


def test_a_manifest_of_an_earlier_form_is_ignored(root: Path) -> None:
    folder = built(root)
    manifest = msgspec.json.decode((folder / MANIFEST).read_bytes())
    del manifest["digests"]
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    assert f"{MANIFEST} is not a manifest" in why_ignored(folder, root)


def test_a_manifest_that_is_no_text_is_ignored(root: Path) -> None:
    folder = built(root)
    (folder / MANIFEST).write_bytes(b'{"suffix":"\xff"}')
    assert f"{MANIFEST} is not a manifest" in why_ignored(folder, root)


def test_a_manifest_that_is_none_is_ignored(root: Path) -> None:
    folder = built(root)
    (folder / MANIFEST).write_text("[]")
    assert f"{MANIFEST} is not a manifest" in why_ignored(folder, root)


def test_a_build_that_is_switched_off_is_not_even_looked_at(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = built(root, suffix="another")
    monkeypatch.setenv(VARIABLE, "off")
    assert why_ignored(folder, root) == ""


def test_what_is_required_and_missing_ends_the_process(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "required")
    with pytest.raises(SystemExit, match="required, but "):
        use_compiled(root / "build", root)


@pytest.mark.parametrize("choice", ["yes", "OFF", " "])
def test_a_wrong_choice_ends_the_process_as_any_wrong_setting(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], choice: str
) -> None:
    monkeypatch.setenv(VARIABLE, choice)
    with pytest.raises(SystemExit) as ended:
        use_compiled(root / "build", root)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"{VARIABLE} must be one of: auto, off, required\n"


def test_a_build_depends_on_what_its_modules_import_too() -> None:
    sources = set(sources_of(MODULES))
    assert {path_of(module) for module in MODULES} <= sources
    assert {Path("readings/encoder.py"), Path("broker/message.py"), Path("gateway/__init__.py")} <= sources
    assert Path("gateway/app.py") not in sources


@pytest.mark.skipif(not REQUIRED, reason="only with the build: make test-compiled")
def test_every_compiled_module_is_loaded_from_the_build() -> None:
    files = {module: str(importlib.import_module(module).__file__) for module in MODULES}
    assert {module: file for module, file in files.items() if not file.endswith(EXTENSION_SUFFIXES[0])} == {}
