"""CSV files for replays."""

from pathlib import Path

from reader.history.csv_lines import CSV_HEADER

EXPORT_HEADER = CSV_HEADER.decode().strip()
RECEIVED_AT = "2024-05-01T00:00:00.250Z"


def csv_file(folder: Path, *lines: str) -> Path:
    """Write the lines to a file and return its path."""
    path = folder / "rows.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
