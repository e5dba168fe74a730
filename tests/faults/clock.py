"""The time of day as one process sees it, which a test can let leap; its timers go on as they are."""

from pathlib import Path

# The faults that cannot be made without libfaketime.
NEEDS_A_CLOCK = {"gateway_clock_leaps", "persister_clocks_apart"}


def library() -> Path | None:
    """Return libfaketime (testing/servers/install has it installed), or None."""
    return next(Path("/usr/lib").glob("*-linux-gnu/faketime/libfaketime.so.1"), None)


class Clock:
    """What a process is to be started with, so that its clock can be set while it runs."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._library = library()
        self.leap(0)

    @property
    def settings(self) -> dict[str, str]:
        """The variables of a process whose clock this is."""
        if self._library is None:
            return {}
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            # The second name is that of older versions.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def leap(self, seconds: int) -> None:
        """Let it be so far ahead, or behind; the process sees it within a second."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)
