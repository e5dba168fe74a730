"""The replay options shared by `python -m simulator` and `python -m onebox`."""

import argparse
from pathlib import Path

from readings.reading import ATTRIBUTES, ID_PATTERN
from simulator.replay.file import Replay
from simulator.replay.value_types import VALUE_TYPES

_COLUMNS = {
    "time": "times (default: timestamp)",
    "value": "values (default: value)",
    "sensor-type": "sensor types (default: none, rows get the device's own type)",
    "seq": "sequence numbers (default: none, they count up within a millisecond)",
    "device": "ids of the devices to send the rows as, instead of simulated ones (default: none)",
}
# What the cells of an optional field hold; of one that is not here, the field's name says it.
_ATTRIBUTES = {
    "unit": "units",
    "location": 'locations, texts or the JSON of a position, {"lat":48.1,"lon":11.5}',
    "tags": "tags, a JSON object of texts",
    "quality": "qualities: good, uncertain or bad",
}

EPILOG = """\
replay:
  A CSV from `GET /readings?format=csv` is recognized by its header and needs no options: every row keeps all
  its fields, and readings that are already stored are not duplicated. A column option of "" ignores a column:
  --device-column "" sends an export's rows as simulated devices.
  Times are milliseconds since 1970, or 2026-01-31 12:00:00 with optional decimals and zone (UTC without one); digits
  beyond milliseconds are cut, and seq counts up, so that no two readings become one.
  --value-type auto reads the values of a sensor type as numbers if at least half of its cells in the file are numbers
  (1,5 and 45% and NaN count as such), else as booleans if half are true or false, else as texts. Markers such as NA and
  ? do not count, and a file of nothing else is an error. A value that does not fit ends the run before anything is
  sent, and names file, line and column: --missing NA skips such rows, --value-type text reads all values as texts."""


def add_replay_options(parser: argparse.ArgumentParser) -> None:
    """Add `--replay` and the options that go with it."""
    add = parser.add_argument_group("replay").add_argument
    add(
        "--replay",
        type=_file,
        metavar="CSV",
        help="each device sends every row of this file as fast as it can, or the rows that name it",
    )
    for name, what in _COLUMNS.items():
        add(f"--{name}-column", metavar="NAME", help=f"column of the {what}")
    for name in ATTRIBUTES:
        add(f"--{name}-column", metavar="NAME", help=f"column of the {_ATTRIBUTES.get(name, name)} (default: none)")
    add("--sensor-type", type=_sensor_type, metavar="TYPE", help="sensor type of all rows (default: the device's own)")
    add(
        "--value-type",
        choices=VALUE_TYPES,
        help="type of the values; auto: numbers if at least half of a sensor type's are (default: auto)",
    )
    add(
        "--missing",
        action="append",
        metavar="TEXT",
        help="skip rows with this value, as rows with an empty value always are; may be repeated",
    )


def replay_of(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Replay | None:
    """Return the replay, or None; exits through `parser.error` if options contradict each other."""
    columns = {f"{name.replace('-', '_')}_column": f"--{name}-column" for name in (*_COLUMNS, *ATTRIBUTES)}
    names = columns | {"sensor_type": "--sensor-type", "value_type": "--value-type", "missing": "--missing"}
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    if options.replay is None:
        if given:
            parser.error(f"{names[next(iter(given))]} goes with --replay")
        return None
    if "sensor_type" in given and given.get("sensor_type_column"):
        parser.error("--sensor-type and --sensor-type-column: give one of them")
    attribute_columns = {
        name: column for name in ATTRIBUTES if (column := given.pop(f"{name}_column", None)) is not None
    }
    missing = tuple(given.pop("missing", ()))
    return Replay(options.replay, **given, attribute_columns=attribute_columns, missing=missing)


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"file {text!r} does not exist")
    return path


def _sensor_type(text: str) -> str:
    if not ID_PATTERN.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} must be 1 to 64 of A-Z a-z 0-9 _ . : -")
    return text
