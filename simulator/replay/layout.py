"""The layout of a table: which columns have times, values and the other fields of readings."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from readings.csv_row import is_export_header
from readings.reading import ATTRIBUTES, MAX_UNIT
from simulator.replay.file import Replay

OPTIONS = {
    "ts": "--time-column",
    "value": "--value-column",
    "sensorType": "--sensor-type-column",
    "seq": "--seq-column",
    "device": "--device-column",
    **{name: f"--{name}-column" for name in ATTRIBUTES},
}
_NUMBERED = re.compile(r"#(\d{1,4})", re.ASCII)
_WITH_UNIT = re.compile(r"(.*\S)\s*[(\[]([^()\[\]]*)[)\]]")
_NOT_IN_A_TYPE = re.compile(r"[^A-Za-z0-9_.:-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class ValueColumn:
    """A column of values. Without `sensor_type` rows name it, or it is the device's own.

    `missing` are numbers that mark missing values. One that is not `chosen` by an option has values if its cells are
    numbers or booleans.
    """

    index: int
    name: str
    sensor_type: str = ""
    unit: str = ""
    missing: frozenset[float] = frozenset()
    chosen: bool = True


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table is read. `first_line` is that of the first row; `fields` are the indexes of columns by field.

    `time_parts` say what each of the time columns has, if each has a number (year, month, …). `zone` is that of the
    file itself, `missing` are its markers of missing values, and `notes` what was found, for people.
    """

    names: tuple[str, ...]
    times: tuple[int, ...]
    values: tuple[ValueColumn, ...]
    fields: Mapping[str, int] = field(default_factory=dict)
    exported: bool = False
    first_line: int = 2
    delimiter: str = ","
    decimal: str = "."
    time_parts: tuple[str, ...] = ()
    zone: str = ""
    missing: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def name_of(self, field_name: str) -> str:
        """Return the name of a field's column, or of several columns; empty if it has none."""
        if field_name == "ts":
            return " + ".join(self.names[index] for index in self.times)
        if field_name == "value":
            return self.values[0].name
        return self.names[self.fields[field_name]] if field_name in self.fields else ""


def export_layout(replay: Replay, header: Sequence[str], line: int) -> Layout:
    """Return the layout of an export of Tidegate's own, whose header is in `line`."""
    names = tuple(name.strip() for name in header)
    fields = fields_of(replay, names, line, defaults=names)
    times = replay.time_columns or ("ts",)
    values = replay.value_columns or ("value",)
    if len(times) != 1 or len(values) != 1 or not all(times + values):
        raise replay.error_at(line, "", "an export has one column of times and one of values")
    index = index_of(replay, names, values[0], "value", line)
    if "device" in fields or replay.device is not None:
        fields["receivedAt"] = names.index("receivedAt")
    return Layout(
        names,
        (index_of(replay, names, times[0], "ts", line),),
        (ValueColumn(index, names[index]),),
        fields,
        exported=True,
        first_line=line + 1,
    )


def is_export(row: Sequence[str]) -> bool:
    """Return whether a row is the header of an export."""
    return is_export_header([name.strip() for name in row])


def fields_of(replay: Replay, names: Sequence[str], line: int, *, defaults: Sequence[str] = ()) -> dict[str, int]:
    """Return the columns of all fields but times and values; `defaults` are read unless an option says otherwise."""
    requested = {
        "sensorType": replay.sensor_type_column if replay.sensor_type is None else "",
        "seq": replay.seq_column,
        "device": replay.device_column if replay.device is None else "",
        **{name: replay.attribute_columns.get(name) for name in ATTRIBUTES},
    }
    found = {}
    for name, column in requested.items():
        wanted = column if column is not None else name if name in defaults else ""
        if wanted:
            found[name] = index_of(replay, names, wanted, name, line)
    return found


def index_of(replay: Replay, names: Sequence[str], wanted: str, field_name: str, line: int) -> int:
    """Return a column's index by its name, or its number as in `#3`; ReplayError says which there are."""
    found = [index for index, name in enumerate(names) if name == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        numbers = " and ".join(f"#{index + 1}" for index in found)
        raise replay.error_at(line, wanted, f"several columns have this name: say {numbers}")
    if (numbered := _NUMBERED.fullmatch(wanted)) and 1 <= int(numbered[1]) <= len(names):
        return int(numbered[1]) - 1
    available = f"the file has {', '.join(names) or 'none'}"
    option = OPTIONS[field_name]
    raise replay.error_at(line, wanted, f"there is no such column; {available}; {option} names another")


def type_and_unit(name: str, index: int) -> tuple[str, str]:
    """Return the sensor type and the unit that a column's name stands for: `GHI (W/m^2)` is GHI in W/m^2."""
    unit = ""
    if _NUMBERED.fullmatch(name):
        return f"column_{index + 1}", unit
    if found := _WITH_UNIT.fullmatch(name):
        name, unit = found[1], found[2].strip()
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    sensor_type = _NOT_IN_A_TYPE.sub("_", plain).strip("_.")[:64]
    return sensor_type or f"column_{index + 1}", unit_text(unit)


def unit_text(unit: str) -> str:
    """Return the unit, or nothing if a reading cannot have it."""
    return unit if len(unit) <= MAX_UNIT and not _CONTROL.search(unit) else ""
