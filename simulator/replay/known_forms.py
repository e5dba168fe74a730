"""Forms of weather files whose columns are not to be found in the file itself: EPW, and the text of buoys."""

from collections.abc import Sequence

from simulator.replay.layout import Layout, ValueColumn, type_and_unit

# EnergyPlus, Auxiliary Programs, "EPW CSV Format (In/Out)": name, unit, and the number that means missing.
_EPW_VALUES: tuple[tuple[str, str, float], ...] = (
    ("Dry Bulb Temperature", "C", 99.9),
    ("Dew Point Temperature", "C", 99.9),
    ("Relative Humidity", "%", 999),
    ("Atmospheric Station Pressure", "Pa", 999999),
    ("Extraterrestrial Horizontal Radiation", "Wh/m2", 9999),
    ("Extraterrestrial Direct Normal Radiation", "Wh/m2", 9999),
    ("Horizontal Infrared Radiation Intensity", "Wh/m2", 9999),
    ("Global Horizontal Radiation", "Wh/m2", 9999),
    ("Direct Normal Radiation", "Wh/m2", 9999),
    ("Diffuse Horizontal Radiation", "Wh/m2", 9999),
    ("Global Horizontal Illuminance", "lux", 999999),
    ("Direct Normal Illuminance", "lux", 999999),
    ("Diffuse Horizontal Illuminance", "lux", 999999),
    ("Zenith Luminance", "Cd/m2", 9999),
    ("Wind Direction", "deg", 999),
    ("Wind Speed", "m/s", 999),
    ("Total Sky Cover", "tenths", 99),
    ("Opaque Sky Cover", "tenths", 99),
    ("Visibility", "km", 9999),
    ("Ceiling Height", "m", 99999),
    ("Present Weather Observation", "", 99),
    ("Present Weather Codes", "", 999999999),
    ("Precipitable Water", "mm", 999),
    ("Aerosol Optical Depth", "thousandths", 0.999),
    ("Snow Depth", "cm", 999),
    ("Days Since Last Snowfall", "", 99),
    ("Albedo", "", 999),
    ("Liquid Precipitation Depth", "mm", 999),
    ("Liquid Precipitation Quantity", "hr", 99),
)
_EPW_TIMES = ("Year", "Month", "Day", "Hour", "Minute")
_EPW_NAMES = (*_EPW_TIMES, "Data Source and Uncertainty Flags", *(name for name, _, _ in _EPW_VALUES))
# Codes of weather, not measurements: taken only if they are asked for.
_CODES = {"Present Weather Observation", "Present Weather Codes"}
_LOCATION_ZONE = 8  # hours from UTC

# The National Data Buoy Center's "Measurement Descriptions and Units".
BUOY_MISSING = "MM"


def epw_layout(records: Sequence[tuple[int, list[str]]]) -> Layout | None:
    """Return the layout if these are the first records (last line, cells) of an EPW file."""
    if not records or records[0][1][:1] != ["LOCATION"] or len(records[0][1]) <= _LOCATION_ZONE:
        return None
    last = next((line for line, cells in records if cells[:1] == ["DATA PERIODS"]), None)
    if last is None:
        return None
    begin = len(_EPW_TIMES) + 1
    values = tuple(
        ValueColumn(begin + n, name, type_and_unit(name, begin + n)[0], unit, frozenset((missing,)), chosen=False)
        for n, (name, unit, missing) in enumerate(_EPW_VALUES)
        if name not in _CODES
    )
    return Layout(
        _EPW_NAMES,
        tuple(range(len(_EPW_TIMES))),
        values,
        first_line=last + 1,
        time_parts=("year", "month", "day", "ending_hour", "minute"),
        zone=_zone_of(records[0][1][_LOCATION_ZONE]),
        notes=("an EPW file: hours end at the time given; 99.9, 999 or 9999 is missing, as its format says",),
    )


def is_buoy_header(names: Sequence[str]) -> bool:
    """Return whether these are the first columns of a buoy's text."""
    return [name.lower() for name in names[:4]] in (["#yy", "mm", "dd", "hh"], ["#yyyy", "mm", "dd", "hh"])


def _zone_of(hours: str) -> str:
    try:
        minutes = round(float(hours) * 60)
    except ValueError:
        return ""
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
