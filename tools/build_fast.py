"""Compiles the modules that every reading passes in a gateway and a persister into build/compiled: `make build-fast`.

mypyc makes one shared library of them, with an extension module for each; `runtime/compiled.py` loads them while they
fit. What is compiled, what not and why: docs/decisions/0033. Needs a C compiler, Python's headers, and the packages of
requirements/build.txt; run without them it says so and builds nothing, which is an error unless `--if-possible`.
"""

import argparse
import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from runtime.compiled import FOLDER, MANIFEST, Manifest, digest  # noqa: E402 - the image's build runs this by its path

GROUP = "tidegate"
REQUIREMENTS = ROOT / "requirements" / "build.txt"
# How mypy checks. setuptools reads it, too, and then the version.
CONFIGURATION = (Path("pyproject.toml"), Path("runtime/version.py"))
MODULES = (
    "gateway.counts",
    "gateway.ingest",
    "gateway.lanes",
    "gateway.limits.rates",
    "gateway.session",
    "gateway.socket.device_socket",
    "gateway.socket.events",
    "gateway.socket.fast_path",
    "gateway.socket.frames",
    "gateway.socket.output",
    "gateway.socket.websocket",
    "gateway.to_broker",
    "persister.batch",
    "readings.document",
)
# Run in a process of its own: it prints, and reads the command line.
SCRIPT = """
import sys
from mypyc.build import mypycify
from setuptools import setup
sources, target = sys.argv[1].split(), sys.argv[2]
modules = mypycify(sources, opt_level="2", debug_level="0", group_name={group!r}, target_dir=target)
setup(
    name={group!r},
    packages=[],
    ext_modules=modules,
    script_args=["-q", "build_ext", "--build-lib", target + "/lib", "--build-temp", target + "/temp"],
)
"""


class CannotBuildError(Exception):
    """Something that compiling needs is missing; the message says what."""


class CompilerError(Exception):
    """mypyc, or the C compiler behind it, refuses a source; the message is its own."""


def path_of(module: str) -> Path:
    """Return the source of a module, relative to the project."""
    file = Path(*module.split("."))
    return file / "__init__.py" if (ROOT / file).is_dir() else file.with_suffix(".py")


def sources_of(modules: tuple[str, ...]) -> list[Path]:
    """Return the sources of modules and of everything of the project that they import, directly or not."""
    found: set[Path] = set()
    waiting = list(modules)
    while waiting:
        file = path_of(waiting.pop())
        if file in found or not (ROOT / file).is_file():
            continue
        found.add(file)
        waiting += [".".join(file.parts[:end]) for end in range(1, len(file.parts))]
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return sorted(found)


def require_tools() -> None:
    """Raise CannotBuildError if something is missing."""
    compiler = (os.environ.get("CC", "").split() or (sysconfig.get_config_var("CC") or "cc").split())[0]
    if shutil.which(compiler) is None:
        raise CannotBuildError(f"there is no C compiler ({compiler})")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise CannotBuildError("Python's headers are not installed")
    for package, version in required_versions(REQUIREMENTS.read_text()).items():
        try:
            found = metadata.version(package)
        except metadata.PackageNotFoundError:
            raise CannotBuildError(f"{package} is not installed (requirements/build.txt)") from None
        if found != version:
            raise CannotBuildError(f"{package} {found} is installed, not {version} (requirements/build.txt)")


def required_versions(requirements: str) -> dict[str, str]:
    """Return the versions that requirements pin, by package."""
    pins = (line.split("==") for line in requirements.splitlines() if "==" in line and not line.startswith("#"))
    return {name.strip(): version.strip() for name, version in pins}


def build() -> Manifest:
    """Compile, and replace what was built before; CompilerError, OSError."""
    with tempfile.TemporaryDirectory(prefix="tidegate-build-") as folder:
        target = Path(folder)
        copies = target / "sources"
        sources = copy_sources(copies)
        compiled = " ".join(str(path_of(module)) for module in MODULES)
        command = [sys.executable, "-c", SCRIPT.format(group=GROUP), compiled, folder]
        done = subprocess.run(command, cwd=copies, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CompilerError(f"{done.stdout}{done.stderr}")
        library = target / "lib"
        suffix = EXTENSION_SUFFIXES[0]
        names = {
            ".".join(file.relative_to(library).parts)[: -len(suffix)]: file for file in library.rglob("*" + suffix)
        }
        files = {name: str(file.relative_to(library)) for name, file in sorted(names.items())}
        digests = {file: digest((library / file).read_bytes()) for file in files.values()}
        manifest = Manifest(suffix, files, f"{GROUP}__mypyc", digests, sources)
        (library / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
        install(library)
    return manifest


def copy_sources(folder: Path) -> dict[str, str]:
    """Copy every source that has a part in the build; return their digests.

    A build takes a minute: compiled where it is, a source that is edited meanwhile would have another digest.
    """
    sources = sources_of(MODULES)
    for file in (*sources, *CONFIGURATION):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, folder / file)
    return {str(file): digest((folder / file).read_bytes()) for file in sources}


def install(library: Path) -> None:
    """Put a build in the place of the one before, whole or not at all, whenever this is interrupted; OSError.

    A process that starts in between finds none, and runs the sources.
    """
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{FOLDER.name}-", dir=FOLDER.parent) as folder:
        made, before = Path(folder) / "made", Path(folder) / "before"
        shutil.copytree(library, made)
        if FOLDER.exists():
            FOLDER.rename(before)
        made.rename(FOLDER)


def main(arguments: list[str] | None = None) -> int:
    """Build; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.build_fast", description=__doc__)
    parser.add_argument("--if-possible", action="store_true", help="succeed without a compiler, and build nothing")
    options = parser.parse_args(arguments)
    try:
        require_tools()
        manifest = build()
    except CannotBuildError as error:
        print(f"Nothing is compiled: {error}", file=sys.stderr)
        return 0 if options.if_possible else 1
    except CompilerError as error:
        print(f"The compiler has failed:\n{error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"The build cannot be written: {error}", file=sys.stderr)
        return 1
    print(f"Compiled {len(manifest.files) - 1} modules into {FOLDER.relative_to(ROOT)}.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
