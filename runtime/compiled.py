"""Loads the modules that `make build-fast` has compiled, in place of their sources, while they fit.

They fit if they were built by an interpreter of this kind and no source has changed since: neither theirs nor that of a
module they import, as types and constants of those are compiled in. Else all of them are ignored, which is logged, and
the sources run; so machine code never outlives an edit. TIDEGATE_COMPILED=off ignores them, `required` ends the process
if they cannot be used.

Call `use_compiled` at the start of a process, before anything imports one of these modules.
"""

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

import msgspec

VARIABLE = "TIDEGATE_COMPILED"
CHOICES = ("auto", "off", "required")
WRONG_SETTING = 2
ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "compiled"
MANIFEST = "manifest.json"


class Manifest(msgspec.Struct):
    """What was built, and from what. Paths are relative: of files to the build, of sources to the project."""

    # The ending of extension modules of the interpreter that built them: its version, its ABI and the platform.
    suffix: str
    # The extension modules by module name, and the one that has the code of them all.
    files: dict[str, str]
    shared: str
    # SHA-256 of each of these files: one that was cut off, or lost its content in a power cut, can end a process
    # instead of failing to load.
    digests: dict[str, str]
    # SHA-256 of every source that has a part in the build.
    sources: dict[str, str]


class NotUsableError(Exception):
    """Compiled modules cannot be used; the message says why."""


class _Finder(MetaPathFinder):
    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self._folder = folder
        self._files = files

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the modules of the build, and nothing else."""
        if (file := self._files.get(fullname)) is None:
            return None
        location = str(self._folder / file)
        return spec_from_file_location(fullname, location, loader=ExtensionFileLoader(fullname, location))


class _State:
    """Of this process: the modules that are loaded from a build, and why a build is ignored."""

    def __init__(self) -> None:
        self.modules: frozenset[str] = frozenset()
        self.ignored = ""


_state = _State()


def use_compiled(folder: Path = FOLDER, root: Path = ROOT) -> None:
    """Load compiled modules from now on, if there are any that fit; SystemExit if they are required and do not.

    A value of TIDEGATE_COMPILED that is none of CHOICES ends the process with 2, as that of any other setting does.
    """
    choice = os.environ.get(VARIABLE) or "auto"
    if choice not in CHOICES:
        sys.stderr.write(f"{VARIABLE} must be one of: {', '.join(CHOICES)}\n")
        raise SystemExit(WRONG_SETTING)
    if choice == "off":
        return
    try:
        manifest = _read(folder)
        if manifest is not None:
            _install(manifest, folder, root)
        why = "" if manifest is not None else f"there is no {folder / MANIFEST}"
    except NotUsableError as error:
        _state.ignored = why = str(error)
    if why and choice == "required":
        raise SystemExit(f"{VARIABLE}=required, but {why}")


def is_compiled() -> bool:
    """Return whether this process has loaded a compiled module."""
    return any(name in sys.modules for name in _state.modules)


def ignored_because() -> str:
    """Return why there are compiled modules that are not used; empty if they are used, or there are none."""
    return _state.ignored


def digest(content: bytes) -> str:
    """Return what identifies a file in a manifest."""
    return sha256(content).hexdigest()


def _install(manifest: Manifest, folder: Path, root: Path) -> None:
    _require_fit(manifest, folder, root)
    finder = _Finder(folder, manifest.files)
    sys.meta_path.insert(0, finder)
    try:
        importlib.import_module(manifest.shared)
    except ImportError as error:  # another C library
        sys.meta_path.remove(finder)
        raise NotUsableError(f"they cannot be loaded: {error}") from error
    _state.modules = frozenset(manifest.files.keys() - {manifest.shared})


def _require_fit(manifest: Manifest, folder: Path, root: Path) -> None:
    if manifest.suffix != EXTENSION_SUFFIXES[0]:
        raise NotUsableError(f"they are built for {manifest.suffix}, this is {EXTENSION_SUFFIXES[0]}")
    for source, expected in manifest.sources.items():
        try:
            found = digest((root / source).read_bytes())
        except OSError as error:
            raise NotUsableError(f"{source} cannot be read: {error.strerror}") from error
        if found != expected:
            raise NotUsableError(f"{source} has changed since they were built")
    for file in manifest.files.values():
        try:
            found = digest((folder / file).read_bytes())
        except OSError as error:
            raise NotUsableError(f"{file} of the build cannot be read: {error.strerror}") from error
        if found != manifest.digests.get(file):
            raise NotUsableError(f"{file} of the build is not whole")
    if early := sorted(manifest.files.keys() & sys.modules.keys()):
        raise NotUsableError(f"{early[0]} was imported before")


def _read(folder: Path) -> Manifest | None:
    """Return the manifest of a build, None if there is no build."""
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise NotUsableError(f"{folder / MANIFEST} cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotUsableError(f"{folder / MANIFEST} is not a manifest: {error}") from error
