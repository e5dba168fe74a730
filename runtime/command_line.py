"""Command lines that explain themselves: purpose, settings, exit codes and signals of a process, and typed arguments.

`--help` and `--version` need no settings; an unknown argument ends the process with 2 and a hint.
"""

import argparse
import math
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from runtime.process import AnySettings, Serve, run_service
from runtime.settings import REQUIRED, choices, table
from runtime.version import VERSION

SERVICE_EXIT_CODES = """\
exit codes:
  0  stopped cleanly
  1  could not go on, or could not drain within DRAIN_SECONDS
  2  a setting or the command line is wrong

signals:
  SIGTERM, SIGINT (Ctrl-C)  stop accepting work, finish what was accepted, exit within DRAIN_SECONDS
  a second one              exit at once, with 1"""

MAX_PORT = 65_535

# What is less alike is another word: --json and --version have 0.67.
_CLOSE = 0.75

_NAMES_WIDTH = 36
_INDENT = " " * 6
_MIN_WIDTH, _MAX_WIDTH = 60, 120


class _Paragraphs(argparse.HelpFormatter):
    """Wraps text by paragraphs; a paragraph with an indented line is kept as it is written."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **{"width": _width()} | options)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            textwrap.indent(part if "\n  " in part else textwrap.fill(" ".join(part.split()), width), indent)
            for part in text.split("\n\n")
        )


class CommandParser(argparse.ArgumentParser):
    """An argument parser with `--version` and hints; its subparsers are of the same class."""

    def __init__(self, *, settings: type[Any] | None = None, exit_codes: str = "", **options: Any) -> None:
        """Describe `settings` (a dataclass) and the exit codes below the arguments."""
        parts = [options.pop("epilog", None), settings and settings_text(settings), exit_codes]
        options = {"formatter_class": _Paragraphs} | options
        super().__init__(epilog="\n\n".join(part for part in parts if part) or None, **options)
        self.add_argument(
            "--version", action="version", version=f"tidegate {VERSION}", help="show the version and exit"
        )
        self._variables = [name for name, _, _ in table(settings)] if settings else []

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Return the parsed arguments; an unknown one ends the process with 2 and a hint."""
        given, unknown = self.parse_known_args(args, namespace)
        if unknown:
            chosen = self._chosen(sys.argv[1:] if args is None else args)
            chosen.error(f"unrecognized arguments: {' '.join(unknown)}{self._hint(unknown, chosen)}")
        return given

    def error(self, message: str) -> NoReturn:
        """End the process with 2, pointing to the help: the usage alone does not explain the options."""
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: error: {message}\nSee {self.prog} --help for all options.\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print, replacing characters that the terminal's encoding lacks."""
        encoding = getattr(file, "encoding", None) or "utf-8"
        super()._print_message(message.encode(encoding, "replace").decode(encoding), file)

    def _chosen(self, arguments: Sequence[str]) -> "CommandParser":
        """Return the parser of the command that the arguments name, or this one."""
        chosen = self
        for argument in arguments:
            chosen = _commands(chosen).get(argument, chosen)
        return chosen

    def _hint(self, unknown: Sequence[str], chosen: "CommandParser") -> str:
        names = [*_commands(chosen), *(name for action in chosen._actions for name in action.option_strings)]
        for argument in unknown:
            name = argument.partition("=")[0]
            variable = name.lstrip("-").upper().replace("-", "_")
            if variable in self._variables:
                return f"\nSettings come from the environment: {variable}=… in place of {name}."
            if close := get_close_matches(name, names, n=1, cutoff=_CLOSE):
                return f"\nDo you mean {close[0]}?"
        return ""


def _commands(parser: CommandParser) -> dict[str, CommandParser]:
    """Return the commands of a parser, each with its own."""
    found = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0]) if found else {}


def settings_text(settings: type[Any]) -> str:
    """Return the settings and their defaults as a block of help text, required ones first."""
    lines = ["settings, from the environment:"]
    chosen = choices(settings)
    for name, default, about in sorted(table(settings), key=lambda row: row[1] != REQUIRED):
        lines.append(f"  {name:{_NAMES_WIDTH}}{default}")
        values = f"; one of {', '.join(chosen[name])}" if name in chosen else ""
        lines += textwrap.wrap(
            f"{about}{values}".replace("`", ""), _width(), initial_indent=_INDENT, subsequent_indent=_INDENT
        )
    return "\n".join(lines)


def service_parser(name: str, about: str, settings: type[Any], **options: Any) -> CommandParser:
    """Return the parser of the service `python -m NAME`."""
    return CommandParser(
        prog=f"python -m {name}", description=about, settings=settings, exit_codes=SERVICE_EXIT_CODES, **options
    )


def run_service_command(
    arguments: Sequence[str], name: str, about: str, settings: type[AnySettings], serve: Serve[AnySettings]
) -> int:
    """Run the service `python -m NAME`, which takes only `--help` and `--version`, and return its exit code."""
    service_parser(name, about, settings).parse_args(arguments)
    return run_service(settings, serve)


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return an argument type: a whole number from `least` to `most`."""
    wanted = f"from {least} to {most}" if most is not None else f"of at least {least}"

    def convert(text: str) -> int:
        if text.isascii() and text.isdigit() and least <= (found := int(text)) and (most is None or found <= most):
            return found
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number {wanted}")

    return convert


def number_between(least: float, most: float) -> Callable[[str], float]:
    """Return an argument type: a number from `least` to `most`."""

    def convert(text: str) -> float:
        if least <= (found := _float(text)) <= most:
            return found
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from {least:g} to {most:g}")

    return convert


def positive_number(text: str) -> float:
    """Convert an argument to a finite number above 0."""
    if 0 < (found := _float(text)) < math.inf:
        return found
    raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0")


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _width() -> int:
    return max(_MIN_WIDTH, min(shutil.get_terminal_size().columns - 2, _MAX_WIDTH))
