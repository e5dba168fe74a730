"""The wall clock of one process, which a test can set; its monotonic clock is not affected."""

from pathlib import Path

# The faults that need libfaketime.
NEEDS_A_CLOCK = {"gateway_clock_leaps", "persister_clocks_apart"}


def library() -> Path | None:
    """Return the path of libfaketime, which testing/servers/install installs, or None."""
    return next(Path("/usr/lib").glob("*-linux-gnu/faketime/libfaketime.so.1"), None)


class Clock:
    """A clock that can be set while the process that was started with its variables runs."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._library = library()
        self.leap(0)

    @property
    def settings(self) -> dict[str, str]:
        """The environment variables of the process that uses this clock."""
        if self._library is None:
            return {}
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            # Older versions use the second name.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def leap(self, seconds: int) -> None:
        """Set it ahead by this many seconds, or behind; the process sees it within a second."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)
