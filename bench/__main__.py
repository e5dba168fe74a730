"""`python -m bench [NAME] [ARGS]`: run one benchmark, or all of them; `--help` lists them."""

import ast
import runpy
import sys
from pathlib import Path

HELP = ("-h", "--help")
HERE = Path(__file__).parent
COMMAND = '__name__ == "__main__"'


def benches() -> dict[str, str]:
    """Return the benchmarks by name, each with the first line of its docstring."""
    found = {}
    for file in sorted(HERE.glob("*.py")):
        text = file.read_text()
        if file.stem != "__main__" and COMMAND in text and "argparse" in text:
            found[file.stem] = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    return found


def main(arguments: list[str]) -> int:
    """Run the named benchmark, or all of them; it exits with its own exit code."""
    known = benches()
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in HELP):
        arguments = ["all", *arguments]
    if arguments[0] not in known:
        print("python -m bench [NAME] [--help]")
        for name, about in known.items():
            print(f"  {name:12} {about}")
        if arguments[0] in HELP:
            return 0
        print(f"python -m bench: there is no {arguments[0]!r}; the list is above", file=sys.stderr)
        return 2
    sys.argv = [f"bench/{arguments[0]}.py", *arguments[1:]]
    runpy.run_module(f"bench.{arguments[0]}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
