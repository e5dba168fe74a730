"""What an owner has stored, counted as clients see it: every reading of an export, wherever MongoDB keeps it."""

import csv
import io
from collections import Counter

import aiohttp

from tests.compose.stack import StackError

KEY = ("device", "sensorType", "ts", "seq")
EXPORT_TIMEOUT_S = 120


async def access_token(url: str, email: str, password: str) -> str:
    """Log in and return the access token."""
    async with (
        aiohttp.ClientSession(url, raise_for_status=True) as session,
        session.post("/user/login", json={"email": email, "password": password}) as answer,
    ):
        token: str = (await answer.json())["accessToken"]
        return token


async def count_readings(url: str, token: str) -> int:
    """Return how many readings an export of everything has; StackError if one occurs twice or the export is cut off."""
    timeout = aiohttp.ClientTimeout(total=EXPORT_TIMEOUT_S)
    query = {"format": "csv", "end": "true", "from": "2000-01-01T00:00:00Z"}
    async with (
        aiohttp.ClientSession(url, raise_for_status=True, timeout=timeout) as session,
        session.get("/readings", params=query, headers={"Authorization": f"Bearer {token}"}) as answer,
    ):
        return count_rows(await answer.text())


def count_rows(export: str) -> int:
    """Return the number of readings of a CSV with `end=true`; StackError if one occurs twice or the end is missing."""
    *lines, end = export.splitlines(keepends=True)
    rows = Counter(tuple(row[name] for name in KEY) for row in csv.DictReader(io.StringIO("".join(lines))))
    if twice := [row for row, times in rows.items() if times > 1]:
        raise StackError(f"{len(twice)} readings occur more than once, such as {twice[0]}")
    if end.strip() != f"# end {len(rows)}":
        raise StackError(f"the export of {len(rows)} readings ends with {end.strip()!r}")
    return len(rows)
