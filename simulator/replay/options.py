"""The options for recorded files, shared by `python -m simulator`, its `import`, and `python -m onebox`."""

import argparse
import codecs
from pathlib import Path
from typing import Any

from readings.reading import ATTRIBUTES, ID_PATTERN, MAX_UNIT
from runtime.command_line import whole_number
from runtime.time_zones import UnknownZone
from simulator.replay.file import Replay, TextOptions
from simulator.replay.times import EPOCH_UNITS, TimeOptions
from simulator.replay.value_types import VALUE_TYPES
from simulator.replay.zones import REPEATED_HOUR, SKIPPED_HOUR, Zone

_SEVERAL_COLUMNS = {
    "time": "times (default: found); twice for dates and times of day",
    "value": "values (default: all columns of numbers); NAME=TYPE gives its sensor type; may be repeated",
}
_COLUMNS = {
    "sensor-type": "sensor types (default: a column's name is its sensor type)",
    "seq": "sequence numbers (default: none, they count up within a millisecond)",
    "device": "ids of the devices to send the rows as (default: none)",
}
# What the cells of an optional field hold; of one that is not here, the field's name says it.
_ATTRIBUTES = {
    "unit": "units",
    "location": 'locations, texts or the JSON of a position, {"lat":48.1,"lon":11.5}',
    "tags": "tags, a JSON object of texts",
    "quality": "qualities: good, uncertain or bad",
}
_DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "space": " ", "blanks": " "}

FILES = """\
files:
  Tables of text (CSV and the like, with any delimiter), exports of Tidegate's own as CSV, NDJSON or Parquet, and
  weather files as EPW; all but Parquet may be gzipped. Exports need no options: every row keeps all its fields, and
  readings that are already stored are not duplicated. A column option of "" ignores a column of an export. #3 is the
  third column. What the file does not say is never guessed. Dates such as 01/02/2026 are read as the other dates of
  the file show; if none does, --time-format must say. Times without a zone are UTC unless --zone says otherwise;
  24:00 is the next day's midnight; whole numbers are s, ms, us or ns since 1970 by their size. Digits beyond
  milliseconds are cut, and seq counts up, so that no two readings become one.
  --value-type auto reads the values of a sensor type as numbers if at least half of its cells in the file are numbers
  (1,5 and 45% and NaN count as such), else as booleans if half are true or false, else as texts. Markers such as NA and
  ? do not count, and a column of nothing else is an error. A value that does not fit ends the run before anything is
  sent, and names file, line and column: --missing NA skips such values, --value-type text reads all values as texts."""


def add_replay_options(parser: argparse.ArgumentParser) -> None:
    """Add `--replay` and the options that go with it."""
    group = parser.add_argument_group("replay")
    group.add_argument(
        "--replay",
        type=file_argument,
        metavar="FILE",
        help="each device sends every row of this file as fast as it can, or the rows that name it",
    )
    add_file_options(group)


def add_file_options(group: Any) -> None:
    """Add the options that say how files are read; they are None unless given."""
    add = group.add_argument
    for name, what in _SEVERAL_COLUMNS.items():
        add(f"--{name}-column", action="append", metavar="NAME", help=f"column of the {what}")
    for name, what in _COLUMNS.items():
        add(f"--{name}-column", metavar="NAME", help=f"column of the {what}")
    for name in ATTRIBUTES:
        add(f"--{name}-column", metavar="NAME", help=f"column of the {_ATTRIBUTES.get(name, name)} (default: none)")
    add(
        "--sensor-type",
        type=id_argument,
        metavar="TYPE",
        help="sensor type of all rows (default: as the file says, or in a replay the device's own)",
    )
    add(
        "--unit",
        action="append",
        type=_unit,
        metavar="[TYPE=]UNIT",
        help="unit of all values, or of a sensor type; may be repeated (default: as the column says, GHI (W/m^2))",
    )
    add(
        "--value-type",
        choices=VALUE_TYPES,
        help="type of the values; auto: numbers if at least half of a sensor type's are (default: auto)",
    )
    add(
        "--missing",
        action="append",
        metavar="TEXT",
        help="skip this value, as an empty one always is; may be repeated",
    )
    add(
        "--time-format",
        metavar="FORMAT",
        help=f"format of the times, as of strptime (%%d/%%m/%%Y %%H:%%M), or {', '.join(EPOCH_UNITS)} since 1970",
    )
    add(
        "--zone",
        type=_zone_name,
        metavar="ZONE",
        help="zone of times that have none: Europe/Berlin, or --zone=-09:00 (default: UTC)",
    )
    add(
        "--repeated-hour",
        choices=REPEATED_HOUR,
        help="where the zone's clocks are set back: the earlier or later meaning, or order: rows are in the order of "
        "time, the first pass is the earlier (default: refuse)",
    )
    add(
        "--skipped-hour",
        choices=SKIPPED_HOUR,
        help="times that the zone's clocks skip; forward: as if they had not been set yet (default: refuse)",
    )
    add("--year", type=whole_number(2000, 9999), metavar="YEAR", help="year of all times, in place of their own")
    add("--delimiter", type=_delimiter, metavar="CHAR", help="between cells: , ; | tab or space (default: found)")
    add("--decimal", choices=(".", ","), help="decimal sign (default: found)")
    add("--skip-rows", type=whole_number(0), metavar="N", help="lines above the header (default: found)")
    add("--encoding", type=_encoding, metavar="NAME", help="encoding of texts, as cp1252 (default: utf-8)")


def replay_of(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Replay | None:
    """Return the replay, or None; exits through `parser.error` if options contradict each other."""
    if options.replay is not None:
        return file_of(parser, options, options.replay)
    for name in vars(_defaults()):
        if getattr(options, name) is not None:
            parser.error(f"--{name.replace('_', '-')} goes with --replay")
    return None


def file_of(
    parser: argparse.ArgumentParser, options: argparse.Namespace, path: Path, device: str | None = None
) -> Replay:
    """Return a file with its options; exits through `parser.error` if options contradict each other."""
    if options.sensor_type is not None and options.sensor_type_column:
        parser.error("--sensor-type and --sensor-type-column: give one of them")
    rules = {"repeated": options.repeated_hour, "skipped": options.skipped_hour}
    given = {name: rule for name, rule in rules.items() if rule is not None}
    if given and options.zone is None:
        parser.error("--repeated-hour and --skipped-hour go with --zone")
    units = dict(options.unit or ())
    if len(units) < len(options.unit or ()):
        parser.error("--unit: give one for each sensor type")
    columns = {name: column for name in ATTRIBUTES if (column := getattr(options, f"{name}_column")) is not None}
    text = TextOptions(
        encoding=options.encoding or "utf-8",
        delimiter=options.delimiter,
        decimal=options.decimal,
        skip_rows=options.skip_rows,
    )
    return Replay(
        path,
        time_columns=tuple(options.time_column or ()),
        value_columns=tuple(options.value_column or ()),
        sensor_type_column=options.sensor_type_column,
        seq_column=options.seq_column,
        device_column=options.device_column,
        attribute_columns=columns,
        sensor_type=options.sensor_type,
        device=device,
        value_type=options.value_type or "auto",
        missing=tuple(options.missing or ()),
        units=units,
        text=text,
        times=TimeOptions(options.time_format, Zone(options.zone, **given) if options.zone else None, options.year),
    )


def _defaults() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_file_options(parser)
    return parser.parse_args([])


def file_argument(text: str) -> Path:
    """Return the path of a file that exists, as an argument's type."""
    path = Path(text)
    if not path.is_file():
        why = f"{text!r} is not a regular file" if path.exists() else f"file {text!r} does not exist"
        raise argparse.ArgumentTypeError(why)
    return path


def id_argument(text: str) -> str:
    """Return an id or sensor type, as an argument's type."""
    if not ID_PATTERN.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} must be 1 to 64 of A-Z a-z 0-9 _ . : -")
    return text


def _unit(text: str) -> tuple[str, str]:
    sensor_type, equals, unit = text.partition("=")
    if not equals:
        sensor_type, unit = "", text
    if len(unit) > MAX_UNIT:
        raise argparse.ArgumentTypeError(f"{unit!r} is longer than {MAX_UNIT} characters")
    return sensor_type, unit


def _zone_name(text: str) -> str:
    try:
        return Zone(text).name
    except UnknownZone:
        raise argparse.ArgumentTypeError(f"there is no zone {text!r}; zones are Europe/Berlin, UTC, +01:00") from None


def _delimiter(text: str) -> str:
    if (found := _DELIMITERS.get(text, text)) and len(found) == 1 and found not in '"\r\n':
        return found
    raise argparse.ArgumentTypeError(f"{text!r} must be one character, or tab or space")


def _encoding(text: str) -> str:
    try:
        return codecs.lookup(text).name
    except LookupError:
        raise argparse.ArgumentTypeError(f"there is no encoding {text!r}") from None
