"""SURVEY → PERSON: what was found in a file, and how it will be read."""

import sys
from collections.abc import Iterator

from simulator.replay.file import Replay
from simulator.replay.survey import Survey
from simulator.replay.value_types import Kind

_MANY = 30
_FORMS = {"ndjson": "NDJSON", "parquet": "Parquet"}
_KINDS: dict[Kind, str] = {"number": "numbers", "text": "texts", "boolean": "booleans", "unknown": "no value"}


def report_lines(replay: Replay, found: Survey) -> list[str]:
    """Return what to tell about a file before it is sent."""
    return [f"{replay.path}: {line}" for line in _lines(replay, found)]


def print_report(replay: Replay, found: Survey) -> None:
    """Print the report on standard error."""
    sys.stderr.write("".join(f"{line}\n" for line in report_lines(replay, found)))
    sys.stderr.flush()


def _lines(replay: Replay, found: Survey) -> Iterator[str]:
    if found.form != "table":
        yield f"an export as {_FORMS[found.form]}"
        return
    layout = found.table
    if layout.exported:
        yield "an export as CSV"
        return
    yield ", ".join(layout.notes)
    yield f"times from {layout.name_of('ts')!r}{_about_times(replay, found)}"
    columns = [_about_column(replay, found, index) for index in range(len(layout.values))]
    yield from columns[:_MANY]
    if len(columns) > _MANY:
        yield f"and {len(columns) - _MANY} more columns of values"
    changed = sorted(found.sensor_types.items())
    if changed:
        yield "sensor types as " + ", ".join(f"{name} for {cell!r}" for cell, name in changed[:_MANY])
    if left_out := list(_left_out(found)):
        more = f" and {len(left_out) - _MANY} more" if len(left_out) > _MANY else ""
        yield f"not taken: {', '.join(left_out[:_MANY])}{more}; --value-column takes a column"
    for marker, count in sorted((found.markers or {}).items()):
        yield f"{marker!r} is among the values {count} times: --missing={marker} skips it"


def _left_out(found: Survey) -> Iterator[str]:
    """Yield the columns that are not read."""
    layout, reasons = found.table, dict(found.left_out)
    read = {*layout.times, *layout.fields.values(), *(column.index for column in layout.values)}
    for index, name in enumerate(layout.names):
        if index not in read and name:
            yield f"{name!r} ({reasons[name]})" if name in reasons else repr(name)


def _about_times(replay: Replay, found: Survey) -> str:
    if replay.times.format is not None:
        why = f"as {replay.times.format}"
    elif found.times.parts:
        why = "as numbers of " + ", ".join(part.replace("_", " ") for part in found.times.parts)
    else:
        why = found.times.why
    year = f", all in {replay.times.year}" if replay.times.year is not None else ""
    return f"{', ' if why else ''}{why}{year}, in {found.zone.name} unless they say otherwise"


def _about_column(replay: Replay, found: Survey, position: int) -> str:
    column = found.table.values[position]
    kinds = sorted({_KINDS[kind] for (index, _), kind in (found.kinds or {}).items() if index == column.index})
    sensor_type = replay.sensor_type or column.sensor_type
    if not sensor_type:
        name = "sensorType" in found.table.fields and repr(found.table.name_of("sensorType"))
        sensor_type = f"the sensor type of {name}" if name else "each device's own sensor type"
    unit = replay.units.get(sensor_type, replay.units.get("", column.unit))
    if "unit" in found.table.fields:
        unit = f"the unit of {found.table.name_of('unit')!r}"
    return f"{sensor_type} from {column.name!r}, {' and '.join(kinds)}{f' in {unit}' if unit else ''}"
