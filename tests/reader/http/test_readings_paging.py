"""Cursors of `GET /readings`: every reading once, in both orders, whatever is stored in between."""

import base64
import random
import struct
from typing import Any

import pytest

from tests.reader.harness import JSON, TS, ReaderClient, Store, make_reading, series

Place = tuple[str, int]


def places(items: list[JSON]) -> list[Place]:
    return [(item["ts"], item["seq"]) for item in items]


def cursor(ts: int, seq: int) -> str:
    return base64.urlsafe_b64encode(struct.pack(">qq", ts, seq)).rstrip(b"=").decode()


async def held(store: Store) -> int:
    """Readings of one series, most of which share their millisecond with others, between two other series."""
    chosen = random.Random(7)
    times = {(TS + chosen.randrange(40), chosen.randrange(30)) for _ in range(300)}
    await store.insert(*(make_reading(1.5, ts, seq) for ts, seq in times))
    await store.insert(*(make_reading(0, TS + number, sensor=sensor) for number in range(40) for sensor in ("a", "z")))
    return len(times)


@pytest.mark.parametrize("limit", [1, 7, 100, 1000])
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_following_cursors_visits_every_reading_once_and_in_order(
    reader_client: ReaderClient, store: Store, order: str, limit: int
) -> None:
    total = await held(store)
    pages = await reader_client.all_pages("/readings", series(order=order, limit=limit))
    found = places([item for page in pages for item in page])
    assert found == sorted(set(found), reverse=order == "desc")
    assert len(found) == total
    assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert 0 < len(pages[-1]) <= limit  # no last page that is empty


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_cursor_stays_within_from_and_to(reader_client: ReaderClient, store: Store, order: str) -> None:
    await held(store)
    bounds: dict[str, Any] = {"from_": TS + 10, "to": TS + 13, "order": order}
    whole = (await reader_client.readings(limit=1000, **bounds)).items
    pages = await reader_client.all_pages("/readings", series(limit=4, **bounds))
    assert [item for page in pages for item in page] == whole
    assert {item["ts"][-4:-1] for item in whole} == {"010", "011", "012"}
    # A cursor from another request moves the start, never beyond an end.
    ahead, beyond = (TS, TS + 20) if order == "asc" else (TS + 20, TS)
    assert (await reader_client.readings(limit=1000, cursor=cursor(ahead, 5), **bounds)).items == whole
    assert (await reader_client.readings(limit=1000, cursor=cursor(beyond, 5), **bounds)).items == []


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_stay_where_they_are_while_readings_come_in(
    reader_client: ReaderClient, store: Store, order: str
) -> None:
    await held(store)
    before = {(ts, seq) for ts, seq in places((await reader_client.readings(limit=1000)).items)}
    seen: list[Place] = []
    query, number = series(order=order, limit=20), 0
    while True:
        answer = await reader_client.fetch("/readings", query)
        seen += places(answer.items)
        if "nextCursor" not in answer.json or len(seen) > 5000:
            break
        query["cursor"] = answer.json["nextCursor"]
        number += 1  # in front of what was seen, behind it, and in its midst
        new = [make_reading(2.5, ts, 10_000 + number) for ts in (TS - 50, TS + 5, TS + 20, TS + 35)]
        await store.insert(*new)
    assert len(seen) == len(set(seen))
    assert before <= set(seen)
    assert seen == sorted(seen, reverse=order == "desc")


async def test_a_cursor_of_one_order_serves_in_the_other(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(*(make_reading(number, TS + number) for number in range(10)))
    at = (await reader_client.readings(limit=4)).json["nextCursor"]
    assert [item["value"] for item in (await reader_client.readings(cursor=at)).items] == [4, 5, 6, 7, 8, 9]
    assert [item["value"] for item in (await reader_client.readings(cursor=at, order="desc")).items] == [2, 1, 0]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize(("ts", "seq"), [(2**63 - 1, 2**63 - 1), (-(2**63), -(2**63)), (0, -1)])
async def test_a_made_up_position_is_a_place_and_no_fault(
    reader_client: ReaderClient, store: Store, ts: int, seq: int, order: str
) -> None:
    await store.insert(*(make_reading(number, TS + number) for number in range(3)))
    found = [item["value"] for item in (await reader_client.readings(order=order, cursor=cursor(ts, seq))).items]
    all_of_them = (ts < TS) == (order == "asc")
    assert sorted(found) == ([0, 1, 2] if all_of_them else [])


async def test_a_cursor_holds_a_position_and_nothing_else(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(*(make_reading(number, TS + number, 5) for number in range(3)))
    assert (await reader_client.readings(limit=2)).json["nextCursor"] == cursor(TS + 1, 5)
