"""Command lines that explain themselves: what a process does, its settings, its exit codes and signals.

`--help` needs no setting; an argument that is unknown ends with 2 and says what may be meant.
"""

import argparse
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from runtime.process import AnySettings, Serve, run_service
from runtime.settings import REQUIRED, choices, table

SERVICE_ENDS = """\
exit codes:
  0  stopped cleanly
  1  could not go on, or could not drain within DRAIN_SECONDS
  2  a setting or the command line is wrong

signals:
  SIGTERM, SIGINT (Ctrl-C)  takes nothing new, finishes what was taken, ends within DRAIN_SECONDS
  a second one              ends it at once, with 1"""

_NAMES_WIDTH = 36
_INDENT = " " * 6
_LEAST_WIDTH, _MOST_WIDTH = 60, 120


class _Paragraphs(argparse.HelpFormatter):
    """Wraps text by paragraphs; a paragraph with an indented line stays as it is written."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **{"width": _width()} | options)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            textwrap.indent(part if "\n  " in part else textwrap.fill(" ".join(part.split()), width), indent)
            for part in text.split("\n\n")
        )


class CommandParser(argparse.ArgumentParser):
    """An argument parser with hints; its subparsers are of the same kind."""

    def __init__(self, *, settings: type[Any] | None = None, ends: str = "", **options: Any) -> None:
        """Describe `settings` (a dataclass) and how the process ends below the arguments."""
        parts = [options.pop("epilog", None), settings and settings_text(settings), ends]
        options = {"formatter_class": _Paragraphs} | options
        super().__init__(epilog="\n\n".join(part for part in parts if part) or None, **options)
        self._variables = [name for name, _, _ in table(settings)] if settings else []

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Return what was given; an argument that nobody knows ends the process with 2 and a hint."""
        given, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._hint(unknown)}")
        return given

    def error(self, message: str) -> NoReturn:
        """End with 2; the usage alone does not tell what there is."""
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: error: {message}\n{self.prog} --help lists what there is.\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print, also on a terminal that does not know every sign."""
        encoding = getattr(file, "encoding", None) or "utf-8"
        super()._print_message(message.encode(encoding, "replace").decode(encoding), file)

    def _hint(self, unknown: Sequence[str]) -> str:
        names = list(_options(self))
        for argument in unknown:
            name = argument.partition("=")[0]
            variable = name.lstrip("-").upper().replace("-", "_")
            if variable in self._variables:
                return f"\nSettings come from the environment: {variable}=… in place of {name}."
            if close := get_close_matches(name, names, n=1):
                return f"\nDo you mean {close[0]}?"
        return ""


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield name
                yield from _options(inner)


def settings_text(settings: type[Any]) -> str:
    """Return the settings with their defaults as a block of a help text, those that are required first."""
    lines = ["settings, from the environment:"]
    chosen = choices(settings)
    for name, default, about in sorted(table(settings), key=lambda row: row[1] != REQUIRED):
        lines.append(f"  {name:{_NAMES_WIDTH}}{default}")
        of = f"; one of {', '.join(chosen[name])}" if name in chosen else ""
        lines += textwrap.wrap(
            f"{about}{of}".replace("`", ""), _width(), initial_indent=_INDENT, subsequent_indent=_INDENT
        )
    return "\n".join(lines)


def service_parser(name: str, about: str, settings: type[Any], **options: Any) -> CommandParser:
    """Return the parser of `python -m NAME`, a service."""
    return CommandParser(prog=f"python -m {name}", description=about, settings=settings, ends=SERVICE_ENDS, **options)


def run_service_command(
    arguments: Sequence[str], name: str, about: str, settings: type[AnySettings], serve: Serve[AnySettings]
) -> int:
    """Run `python -m NAME`, a service that takes no arguments but `--help`, and return its exit code."""
    service_parser(name, about, settings).parse_args(arguments)
    return run_service(settings, serve)


def _width() -> int:
    return max(_LEAST_WIDTH, min(shutil.get_terminal_size().columns - 2, _MOST_WIDTH))
