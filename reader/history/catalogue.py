"""A catalogue of one owner's series and of registered devices that have sent nothing, sorted and searchable.

Catalogues are rebuilt periodically and never modified, so that the pages of one catalogue have one order.
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

# Entries searched before yielding to other tasks; takes some 1 ms.
ENTRIES_PER_STEP = 5000
ONLINE, OFFLINE = "online", "offline"
# The online state is cached for this many times the time it took to compute: 0.1 s with 10,000 devices connected.
ONLINE_TTL_FACTOR = 20
_DIGITS = re.compile(r"[0-9]+")


class Entry(NamedTuple):
    """One series, or a registered device without a series yet (`stored` is False)."""

    device: str
    sensor_type: str
    name: str | None
    location: Location | None
    registered: bool
    stored: bool

    @property
    def series(self) -> Series:
        """The device and sensorType of the stored readings."""
        return self.device, self.sensor_type


class Catalogue:
    """The sorted entries of one owner."""

    def __init__(self, entries: list[Entry], *, truncated: bool = False) -> None:
        """Take sorted entries; `truncated`: the owner has more series than these."""
        self.entries = entries
        self.truncated = truncated
        self.devices = frozenset(entry.device for entry in entries)
        # The searchable texts of each entry: the device's and the sensorType's, each stored once.
        self._texts = _search_texts(entries)
        self._online: frozenset[str] = frozenset()
        self._online_until = float("-inf")

    def __len__(self) -> int:
        return len(self.entries)

    def online(self, connected: Callable[[], set[str]]) -> frozenset[str]:
        """Return the devices that have a session; cached briefly when expensive to compute."""
        started = time.monotonic()
        if started >= self._online_until:
            self._online = self.devices & connected()
            now = time.monotonic()
            self._online_until = now + ONLINE_TTL_FACTOR * (now - started)
        return self._online

    async def matching(self, text: str, device: str | None, online: frozenset[str]) -> Sequence[Entry]:
        """Return the entries (of one device, if given) in which every word occurs or names the device's state."""
        words = _search_words(text)
        if not words and device is None:
            return self.entries
        found: list[Entry] = []
        for start in range(0, len(self.entries), ENTRIES_PER_STEP):
            part: Iterable[_SearchEntry] = self._texts[start : start + ENTRIES_PER_STEP]
            if device is not None:
                part = [one for one in part if one[0].device == device]
            for word in words:
                part = [
                    one
                    for one in part
                    if word in one[1] or word in one[2] or _matches_state(word, one[0].device in online)
                ]
            found += [one[0] for one in part]
            await asyncio.sleep(0)
        return found


_SearchEntry = tuple[Entry, str, str]


def _matches_state(word: str, online: bool) -> bool:
    return word == (ONLINE if online else OFFLINE)


def build_catalogue(
    series: Iterable[Series], devices: Iterable[RegisteredDevice], *, truncated: bool = False
) -> Catalogue:
    """Combine and sort series and devices; some 5 us per entry, so build long lists in a thread."""
    registered = {device.id: device for device in devices}
    # Equal texts of many entries share one object.
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

    def sort_key(entry: Entry) -> str:
        device, sensor_type = entry.device, entry.sensor_type
        if device not in by_device:
            label = device if entry.name is None else entry.name
            by_device[device] = f"{natural_sort_key(label)}\0{label}\0{device}\0"
        if sensor_type not in by_type:
            by_type[sensor_type] = f"{natural_sort_key(sensor_type)}\0{sensor_type}"
        return by_device[device] + by_type[sensor_type]

    entries.sort(key=sort_key)
    return Catalogue(entries, truncated=truncated)


def _entry(known: RegisteredDevice | None, device: str, sensor_type: str) -> Entry:
    if known is None:
        return Entry(device, sensor_type, None, None, False, True)
    return Entry(device, sensor_type, known.name, known.location, True, True)


def natural_sort_key(text: str) -> str:
    """Return a key for natural order: `sim-2` before `sim-10`, ignoring case."""
    return _DIGITS.sub(_length_prefixed, text.casefold())


def _length_prefixed(number: re.Match[str]) -> str:
    digits = number[0].lstrip("0")
    return f"0{len(digits):03}{digits}"


def _search_words(text: str) -> list[str]:
    """Return the words to search, longest first; a word contained in another one is redundant and dropped."""
    given = set(_normalized(text).split())
    words: list[str] = []
    for word in sorted(given - {ONLINE, OFFLINE}, key=len, reverse=True):
        if not any(word in longer for longer in words):
            words.append(word)
    return words + sorted(given & {ONLINE, OFFLINE})


def _search_texts(entries: Iterable[Entry]) -> list[_SearchEntry]:
    devices: dict[str, str] = {}
    types: dict[str, str] = {}
    found: list[_SearchEntry] = []
    for entry in entries:
        if entry.device not in devices:
            location = entry.location
            place = location if isinstance(location, str) else ",".join(map(str, (location or {}).values()))
            # Separated by newlines: no search word spans two of them.
            devices[entry.device] = _normalized("\n".join((entry.name or "", entry.device, place)))
        if entry.sensor_type not in types:
            types[entry.sensor_type] = _normalized(entry.sensor_type)
        found.append((entry, devices[entry.device], types[entry.sensor_type]))
    return found


def _normalized(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()
