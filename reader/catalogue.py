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
# Who is online is looked up anew after so long; some 1 us a device.
ONLINE_FOR_S = 0.5
_DIGITS = re.compile(r"([0-9]+)")


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
        self._texts = [_searched(entry) for entry in entries]
        self._online: frozenset[str] = frozenset()
        self._online_until = float("-inf")

    def __len__(self) -> int:
        return len(self.entries)

    async def online(self, connected: Callable[[str], bool]) -> frozenset[str]:
        """Return the devices that have a session now, or had one half a second ago."""
        if time.monotonic() < self._online_until:
            return self._online
        found: list[str] = []
        for number, device in enumerate(self.devices):
            if connected(device):
                found.append(device)
            if number % ENTRIES_AT_ONCE == ENTRIES_AT_ONCE - 1:
                await asyncio.sleep(0)
        self._online, self._online_until = frozenset(found), time.monotonic() + ONLINE_FOR_S
        return self._online

    async def matching(self, text: str, device: str | None, online: frozenset[str]) -> Sequence[Entry]:
        """Return the entries in which every word occurs, or stands for the state; of one device, if one is named."""
        words = _words(text)
        if not words and device is None:
            return self.entries
        found: list[Entry] = []
        for start in range(0, len(self.entries), ENTRIES_AT_ONCE):
            part = slice(start, start + ENTRIES_AT_ONCE)
            pairs: Iterable[tuple[Entry, str]] = zip(self.entries[part], self._texts[part], strict=True)
            if device is not None:
                pairs = [pair for pair in pairs if pair[0].device == device]
            for word in words:
                if word in (ONLINE, OFFLINE):
                    wanted = word == ONLINE
                    pairs = [pair for pair in pairs if (pair[0].device in online) is wanted or word in pair[1]]
                else:
                    pairs = [pair for pair in pairs if word in pair[1]]
            found += [entry for entry, _ in pairs]
            await asyncio.sleep(0)
        return found


def catalogue_of(series: Iterable[Series], devices: Iterable[RegisteredDevice], *, truncated: bool) -> Catalogue:
    """Sort what is stored and what is registered; some 10 us an entry, so that long lists are made in a thread."""
    registered = {device.id: device for device in devices}
    entries: list[Entry] = []
    texts: dict[str, str] = {}
    for device, sensor_type in series:
        known = registered.get(device)
        shared = texts.setdefault(sensor_type, sensor_type)
        if known is None:
            entries.append(Entry(texts.setdefault(device, device), shared, None, None, False, True))
        else:
            entries.append(Entry(known.id, shared, known.name, known.location, True, True))
    stored = {entry.device for entry in entries}
    entries += [
        Entry(device.id, device.sensor_type, device.name, device.location, True, False)
        for device in registered.values()
        if device.id not in stored
    ]
    entries.sort(key=_place_in_order)
    return Catalogue(entries, truncated=truncated)


def natural(text: str) -> list[Any]:
    """Return what sorts texts as people do: `sim-2` before `sim-10`, capitals beside small letters."""
    parts: list[Any] = _DIGITS.split(text.casefold())
    parts[1::2] = map(int, parts[1::2])
    return parts


def _place_in_order(entry: Entry) -> tuple[Any, ...]:
    label = entry.device if entry.name is None else entry.name
    return natural(label), label, entry.device, natural(entry.sensor_type), entry.sensor_type


def _words(text: str) -> list[str]:
    """Return the words that decide, the longest first: what is a part of another one goes without saying."""
    given = set(_folded(text).split())
    words: list[str] = []
    for word in sorted(given - {ONLINE, OFFLINE}, key=len, reverse=True):
        if not any(word in longer for longer in words):
            words.append(word)
    return words + sorted(given & {ONLINE, OFFLINE})


def _searched(entry: Entry) -> str:
    location = entry.location
    place = location if isinstance(location, str) else ",".join(map(str, (location or {}).values()))
    # No word of a search goes from one line to the next.
    return _folded("\n".join((entry.name or "", entry.device, entry.sensor_type, place)))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()
