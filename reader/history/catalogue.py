"""What one owner has, sorted for people and searchable: series that are stored, and devices that have sent nothing.

Made anew from time to time and never changed, so that one who pages through it sees one order.
"""

import asyncio
import re
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from reader.from_auth import RegisteredDevice

Series = tuple[str, str]
Location = str | dict[str, Any]

# Entries that are looked through before others are served in between, some 1 ms.
ENTRIES_AT_ONCE = 5000
ONLINE, OFFLINE = "online", "offline"
# Who is online is known for so many times as long as it took to find out: 0.1 s where 10,000 devices are connected.
KEPT_TIMES = 20
_DIGITS = re.compile(r"[0-9]+")


class Entry(NamedTuple):
    """One series, or one device that is registered and has none yet (`stored` is False)."""

    device: str
    sensor_type: str
    name: str | None
    location: Location | None
    registered: bool
    stored: bool

    @property
    def series(self) -> Series:
        """What the readings are stored under."""
        return self.device, self.sensor_type


class Catalogue:
    """The entries of one owner in their order."""

    def __init__(self, entries: list[Entry], *, truncated: bool = False) -> None:
        """Take entries that are sorted; `truncated`: there are more series than are kept here."""
        self.entries = entries
        self.truncated = truncated
        self.devices = frozenset(entry.device for entry in entries)
        # What is searched: of each entry the device's text and the sensorType's, one text for all that have the same.
        self._texts = _texts_of(entries)
        self._online: frozenset[str] = frozenset()
        self._online_until = float("-inf")

    def __len__(self) -> int:
        return len(self.entries)

    def online(self, connected: Callable[[], set[str]]) -> frozenset[str]:
        """Return which of the devices have a session: now, or where that takes long to tell, a moment ago."""
        started = time.monotonic()
        if started >= self._online_until:
            self._online = self.devices & connected()
            now = time.monotonic()
            self._online_until = now + KEPT_TIMES * (now - started)
        return self._online

    async def matching(self, text: str, device: str | None, online: frozenset[str]) -> Sequence[Entry]:
        """Return the entries in which every word occurs, or stands for the state; of one device, if one is named."""
        words = _words(text)
        if not words and device is None:
            return self.entries
        found: list[Entry] = []
        for start in range(0, len(self.entries), ENTRIES_AT_ONCE):
            part: Iterable[_Searched] = self._texts[start : start + ENTRIES_AT_ONCE]
            if device is not None:
                part = [one for one in part if one[0].device == device]
            for word in words:
                part = [one for one in part if word in one[1] or word in one[2] or _is(word, one[0].device in online)]
            found += [one[0] for one in part]
            await asyncio.sleep(0)
        return found


_Searched = tuple[Entry, str, str]


def _is(word: str, online: bool) -> bool:
    return word == (ONLINE if online else OFFLINE)


def catalogue_of(
    series: Iterable[Series], devices: Iterable[RegisteredDevice], *, truncated: bool = False
) -> Catalogue:
    """Sort what is stored and what is registered; some 5 us an entry, so that long lists are made in a thread."""
    registered = {device.id: device for device in devices}
    # Texts that many entries have are kept once.
    shared: dict[str, str] = {}
    entries = [
        _entry(registered.get(device), shared.setdefault(device, device), shared.setdefault(sensor_type, sensor_type))
        for device, sensor_type in series
    ]
    stored = {entry.device for entry in entries}
    entries += [
        Entry(device.id, device.sensor_type, device.name, device.location, True, False)
        for device in registered.values()
        if device.id not in stored
    ]
    by_device: dict[str, str] = {}
    by_type: dict[str, str] = {}

    def place(entry: Entry) -> str:
        device, sensor_type = entry.device, entry.sensor_type
        if device not in by_device:
            label = device if entry.name is None else entry.name
            by_device[device] = f"{natural(label)}\0{label}\0{device}\0"
        if sensor_type not in by_type:
            by_type[sensor_type] = f"{natural(sensor_type)}\0{sensor_type}"
        return by_device[device] + by_type[sensor_type]

    entries.sort(key=place)
    return Catalogue(entries, truncated=truncated)


def _entry(known: RegisteredDevice | None, device: str, sensor_type: str) -> Entry:
    if known is None:
        return Entry(device, sensor_type, None, None, False, True)
    return Entry(device, sensor_type, known.name, known.location, True, True)


def natural(text: str) -> str:
    """Return what sorts texts as people do: `sim-2` before `sim-10`, capitals beside small letters."""
    return _DIGITS.sub(_counted, text.casefold())


def _counted(number: re.Match[str]) -> str:
    digits = number[0].lstrip("0")
    return f"0{len(digits):03}{digits}"


def _words(text: str) -> list[str]:
    """Return the words that decide, the longest first: what is a part of another one goes without saying."""
    given = set(_folded(text).split())
    words: list[str] = []
    for word in sorted(given - {ONLINE, OFFLINE}, key=len, reverse=True):
        if not any(word in longer for longer in words):
            words.append(word)
    return words + sorted(given & {ONLINE, OFFLINE})


def _texts_of(entries: Iterable[Entry]) -> list[_Searched]:
    devices: dict[str, str] = {}
    types: dict[str, str] = {}
    found: list[_Searched] = []
    for entry in entries:
        if entry.device not in devices:
            location = entry.location
            place = location if isinstance(location, str) else ",".join(map(str, (location or {}).values()))
            # No word of a search goes from one line to the next.
            devices[entry.device] = _folded("\n".join((entry.name or "", entry.device, place)))
        if entry.sensor_type not in types:
            types[entry.sensor_type] = _folded(entry.sensor_type)
        found.append((entry, devices[entry.device], types[entry.sensor_type]))
    return found


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()
