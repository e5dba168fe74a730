"""The settings table of README and the names in runtime/variables.py, made from the settings themselves.

`python -m tools.settings_table` writes both.
"""

from pathlib import Path

from auth.settings import AnnounceSettings, AuthSettings, DatabaseSettings, KeySettings, UserSettings
from broker.settings import BrokerSettings
from gateway.settings import GatewaySettings
from onebox.services import MADE_HERE
from onebox.settings import OneboxSettings
from persister.settings import PersisterSettings
from reader.settings import ReaderSettings
from runtime import failpoints
from runtime.settings import ProcessSettings, table
from simulator.command import PASSWORD_VARIABLE
from simulator.settings import SimulatorSettings

VARIABLES = Path(__file__).parent.parent / "runtime" / "variables.py"
README = Path(__file__).parent.parent / "README.md"
VARIABLES_HEAD = '''\
"""The variables that our processes read: what another one takes is no mistake in this one's environment.

Written by `python -m tools.settings_table`.
"""

VARIABLES = frozenset(
    {
'''
START, END = "<!-- settings -->\n", "<!-- /settings -->"
SERVICES = {
    "auth": AuthSettings,
    "gateway": GatewaySettings,
    "persister": PersisterSettings,
    "reader": ReaderSettings,
    "simulator serve": SimulatorSettings,
    "onebox": OneboxSettings,
}
ONEBOX_TAKES = (
    "| `onebox` | all others of `auth`, `gateway`, `persister`, `reader` | theirs | the same as for them; an own"
    " `SIGNING_KEY_SECRET` is made and kept beside the data unless it is set. What it makes itself is not taken:"
    f" {', '.join(f'`{name}`' for name in MADE_HERE)}; `--host` and `--port` say where it listens |\n"
)


def rendered() -> str:
    """Return the table in Markdown."""
    common = table(ProcessSettings)
    parts = [_rows("every process", [row for row in common if row[0] != "OPS_PORT"])]
    for name, settings in SERVICES.items():
        rows = [row for row in table(settings) if row not in common]
        parts.append(_rows(f"`{name}`", rows))
    parts.append(ONEBOX_TAKES)
    return "| process | variable | default | what for |\n|---|---|---|---|\n" + "".join(parts)


def _rows(process: str, rows: list[tuple[str, str, str]]) -> str:
    return "".join(f"| {process} | `{name}` | {default} | {about} |\n" for name, default, about in rows)


def with_table(text: str) -> str:
    """Return README's text with the present table between its marks."""
    head, rest = text.split(START)
    return head + START + rendered() + END + rest.split(END)[1]


def variables() -> str:
    """Return the module that names the variables of every process."""
    settings = (*SERVICES.values(), DatabaseSettings, KeySettings, UserSettings, AnnounceSettings, BrokerSettings)
    names = {name for kind in settings for name, _, _ in table(kind)} | {PASSWORD_VARIABLE, failpoints.VARIABLE}
    return VARIABLES_HEAD + "".join(f'        "{name}",\n' for name in sorted(names)) + "    }\n)\n"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
    VARIABLES.write_text(variables())
