"""The options of a replay, the same for `python -m simulator` and `python -m onebox`."""

import argparse
from pathlib import Path

from readings.reading import ID_PATTERN
from simulator.replay.file import Replay
from simulator.replay.value_types import VALUE_TYPES

_COLUMNS = {
    "time": "times (default: timestamp)",
    "value": "values (default: value)",
    "sensor-type": "sensor types (default: none, rows have the device's own type)",
    "unit": "units (default: none)",
    "location": 'locations, texts or the JSON of a position, {"lat":48.1,"lon":11.5} (default: none)',
    "tags": "tags, a JSON object of texts (default: none)",
    "seq": "sequence numbers (default: none, they are counted within a millisecond)",
    "device": "ids of the devices that the rows are sent as, in place of simulated ones (default: none)",
}

EPILOG = """\
replay:
  A CSV that `GET /readings?format=csv` has given out, told by its header, goes back in without options: every row keeps
  its device, sensorType, ts, seq, value, unit, location and tags, and what is stored already stays once. A column
  option of "" leaves a column out: --device-column "" sends an export's rows as simulated devices.
  Times are milliseconds since 1970, or 2026-01-31 12:00:00 with decimals and a zone or without (then UTC); what is
  finer than a millisecond is cut, and seq counts up, so that no two readings become one.
  --value-type auto makes the values of a sensor type numbers where at least half of its cells in the file are numbers
  (1,5 and 45% and NaN count as such), else booleans where half are true or false, else texts; marks such as NA and ?
  do not vote, and are no texts where there is nothing else. A value that does not fit ends the run before anything is
  sent, with file, line and column: --missing NA leaves such rows out, --value-type text takes them as texts."""


def add_replay_options(parser: argparse.ArgumentParser) -> None:
    """Add `--replay` and what goes with it."""
    add = parser.add_argument_group("replay").add_argument
    add(
        "--replay",
        type=_file,
        metavar="CSV",
        help="each device sends every row of this file as fast as it goes, or the rows that name it; then it ends",
    )
    for name, what in _COLUMNS.items():
        add(f"--{name}-column", metavar="NAME", help=f"column of the {what}")
    add("--sensor-type", type=_sensor_type, metavar="TYPE", help="sensor type of all rows (default: the device's own)")
    add(
        "--value-type",
        choices=VALUE_TYPES,
        help="what the values are; auto: numbers where at least half of a sensor type's are (default: auto)",
    )
    add(
        "--missing",
        action="append",
        metavar="TEXT",
        help="a row with this value is left out, as one with an empty value always is; may be given several times",
    )


def replay_of(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Replay | None:
    """Return what is to be replayed; ends the process as argparse does when options contradict each other."""
    columns = {f"{name.replace('-', '_')}_column": f"--{name}-column" for name in _COLUMNS}
    names = columns | {"sensor_type": "--sensor-type", "value_type": "--value-type", "missing": "--missing"}
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    if options.replay is None:
        if given:
            parser.error(f"{names[next(iter(given))]} goes with --replay")
        return None
    if "sensor_type" in given and given.get("sensor_type_column"):
        parser.error("--sensor-type and --sensor-type-column: give one of them")
    return Replay(options.replay, **given | {"missing": tuple(given.get("missing", ()))})


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text!r}")
    return path


def _sensor_type(text: str) -> str:
    if not ID_PATTERN.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} must be 1 to 64 of A-Z a-z 0-9 _ . : -")
    return text
