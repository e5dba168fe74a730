"""Programs of other Debian suites in addition to this machine's, for tests that must hold on several versions.

`install-from-debian` unpacks packages into a folder, once on a machine; `enter` runs a program there.
"""

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

INSTALL = Path(__file__).with_name("install-from-debian")
ENTER = Path(__file__).with_name("enter")


class NotAvailableError(Exception):
    """It is not available on this machine; the message is the reason, in one line."""


def unpacked(suite: str, *packages: str) -> Path:
    """Return a root folder with packages of a suite; cached, 10 to 60 s the first time on a machine."""
    done = subprocess.run(
        [str(INSTALL), suite, *packages],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    if done.returncode:
        raise NotAvailableError((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])
    root = Path(done.stdout.strip())
    # Root in a container may have the folder from an earlier run and still not be allowed to mount.
    entering = subprocess.run([str(ENTER), str(root), "true"], capture_output=True, text=True, timeout=60, check=False)
    if entering.returncode:
        why = (entering.stderr.strip() or f"exit code {entering.returncode}").splitlines()[-1]
        raise NotAvailableError(f"its programs cannot be run here: {why}")
    return root


def unpacked_version(root: Path) -> str:
    """Return the version of the first package in a root folder, such as "4.3.6"."""
    return (root / "version").read_text().strip()


def newest_rabbitmq_root() -> Path:
    """Return the root folder with the newest RabbitMQ that Debian has."""
    return unpacked("sid", "rabbitmq-server")


def entered(root: Path | None, command: Sequence[str]) -> list[str]:
    """Return the command that runs another one in a root folder; without one, the command itself."""
    return [*([] if root is None else [str(ENTER), str(root)]), *command]


def write_wrapper(file: Path, root: Path | None, program: str, *, log: Path | None = None, **folders: Path) -> Path:
    """Write a script that runs a program of a root folder as if it were of this machine, and return its path.

    `log`: a file that gets its standard error; `folders`: prepended to the environment variables of these names.
    """
    lines = [f'export {name}={shlex.quote(str(folder))}"${{{name}:+:${name}}}"' for name, folder in folders.items()]
    output = "" if log is None else f" 2>>{shlex.quote(str(log))}"
    file.write_text("\n".join(["#!/bin/sh", *lines, f'exec {shlex.join(entered(root, [program]))} "$@"{output}', ""]))
    file.chmod(0o755)
    return file


def versions_line(versions: list[str], why_not_newest: str) -> str:
    """Return a line with the RabbitMQ versions that ran and, if the newest was not available, the reason."""
    line = f"RabbitMQ {' and '.join(sorted(set(versions))) or '(none)'} ran in these tests"
    return f"{line}; NOT TESTED with the newest: {why_not_newest}" if why_not_newest else line
