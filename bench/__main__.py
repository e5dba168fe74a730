"""`python -m bench [NAME] [ARGS]`: run a measurement, or all of them; `--help` lists what there is."""

import ast
import runpy
import sys
from pathlib import Path

HELP = ("-h", "--help")
HERE = Path(__file__).parent
COMMAND = '__name__ == "__main__"'


def benches() -> dict[str, str]:
    """Return the measurements by name, with the first line of what each says of itself."""
    found = {}
    for file in sorted(HERE.glob("*.py")):
        text = file.read_text()
        if file.stem != "__main__" and COMMAND in text and "argparse" in text:
            found[file.stem] = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    return found


def main(arguments: list[str]) -> int:
    """Run the measurement that is named, or the whole; its own exit code says how it went."""
    known = benches()
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in HELP):
        arguments = ["whole", *arguments]
    if arguments[0] not in known:
        print("python -m bench [NAME] [--help]")
        for name, about in known.items():
            print(f"  {name:12} {about}")
        return 0 if arguments[0] in HELP else 2
    sys.argv = [f"bench/{arguments[0]}.py", *arguments[1:]]
    runpy.run_module(f"bench.{arguments[0]}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
