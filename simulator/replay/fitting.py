"""OPTIONS ↔ FILE: what the command line says has to have an effect on the file; ReplayError if it has none, or two."""

from collections.abc import Set
from dataclasses import replace

from simulator.replay.file import Replay
from simulator.replay.layout import Layout
from simulator.replay.source import Form
from simulator.replay.times import TimeOptions

_SHOWN = 20


def with_types(replay: Replay, layout: Layout) -> Layout:
    """Return the layout whose only column of values has the sensor types that an option or another column gives."""
    if replay.sensor_type is None and "sensorType" not in layout.fields:
        return layout
    if len(layout.values) > 1:
        option = "--sensor-type" if replay.sensor_type is not None else "--sensor-type-column"
        shown = ", ".join(repr(column.name) for column in layout.values[:_SHOWN])
        raise replay.error(f"{option} is for one column of values, and there are {shown}: --value-column names it")
    return replace(layout, values=(replace(layout.values[0], sensor_type=""),))


def require_known_units(replay: Replay, layout: Layout, named: Set[str]) -> None:
    """Raise ReplayError if a unit is for a sensor type that the file has not; `named` are those that its rows name."""
    columns = {replay.sensor_type or column.sensor_type for column in layout.values}
    known = named if "sensorType" in layout.fields else columns
    if "" in known:  # those of simulated devices
        return
    for sensor_type in replay.units.keys() - known - {""}:
        shown = ", ".join(sorted(known)[:_SHOWN])
        raise replay.error(f"--unit {sensor_type}=… is for a sensor type that the file has not; it has {shown}")


def require_as_exported(replay: Replay) -> None:
    """Raise ReplayError for options about what an export as CSV says itself."""
    if replay.times != TimeOptions() or replay.units or replay.text.decimal == ",":
        raise replay.error("an export has its own times, units and decimal sign: options for them are for other tables")


def require_no_columns(replay: Replay, form: Form) -> None:
    """Raise ReplayError for options that are for tables."""
    plain = Replay(
        replay.path, device_column=replay.device_column, sensor_type=replay.sensor_type, device=replay.device
    )
    if replay != plain:
        name = {"ndjson": "NDJSON", "parquet": "Parquet"}[form]
        raise replay.error(f"{name} is read as an export has it: options for columns, times and cells are for tables")
