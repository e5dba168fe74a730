"""Each proxy with its configuration from docs/proxies.md, in front of a real gateway and reader."""

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
import socketio

from broker.embedded.broker import EmbeddedBroker
from reader.history import from_mongodb
from reader.history.from_mongodb import HistoryUnavailable
from storage.places import reading
from storage.places.reading import Places
from testing.node import node_with
from tests.docs.origin import TRUSTED, origin
from tests.docs.pages import page, run_json
from tests.docs.proxies import PAGE, PROGRAMS, ProxyClient, running_proxy
from tests.reader.harness import DEVICE, ISSUING, SENSOR, TS, Mongo, bearer, make_reading, open_store, user_token
from tests.reader.live_client import Persister

HERE = Path(__file__).parent
ROWS = 3000
EXPORT = {"device": DEVICE, "sensorType": SENSOR, "format": "ndjson"}


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    async with EmbeddedBroker.open_at(tmp_path / "queue.db") as opened:
        yield opened


@pytest.fixture(params=PROGRAMS)
async def front(
    request: pytest.FixtureRequest, tmp_path: Path, broker: EmbeddedBroker, mongodb_database: Mongo
) -> AsyncIterator[ProxyClient]:
    async with origin(broker, mongodb_database) as port, running_proxy(tmp_path, request.param, port) as found:
        yield found


async def test_a_device_streams_through_it(front: ProxyClient) -> None:
    for origin_of_page in (None, front.url):
        client = socketio.AsyncClient(http_session=front.http, reconnection=False)
        headers = {} if origin_of_page is None else {"Origin": origin_of_page}
        auth = {"token": ISSUING.device()}
        await client.connect(front.url, auth=auth, headers=headers, transports=["websocket"])
        assert await client.call("reading", {"value": 1}, timeout=10) == {"status": "accepted", "accepted": 1}
        await client.disconnect()


async def test_readings_of_a_mebibyte_pass_and_what_is_too_large_is_refused_by_tidegate(front: ProxyClient) -> None:
    headers = bearer(ISSUING.device()) | {"Content-Type": "application/json"}
    readings = b'[{"value":1}' + b" " * (1024 * 1024 - 13) + b"]"
    async with front.http.post(front.url + "/readings", data=io.BytesIO(readings), headers=headers) as answer:
        assert (answer.status, await answer.json()) == (202, {"accepted": 1, "rejected": []})
    async with front.http.post(front.url + "/readings", data=io.BytesIO(readings + b" "), headers=headers) as answer:
        assert (answer.status, (await answer.json())["code"]) == (413, "too_large")


async def test_the_clients_address_is_forwarded_and_a_forged_one_is_not(front: ProxyClient) -> None:
    assert f"`TRUSTED_PROXIES={TRUSTED}`" in page(PAGE)
    for forged in ({}, {"X-Forwarded-For": "6.6.6.6"}, {"X-Forwarded-For": "6.6.6.6, 127.0.0.1"}):
        async with front.http.get(front.url + "/address", headers=forged) as answer:
            assert await answer.text() == "127.0.0.5"


async def test_the_live_feed_comes_as_it_is_sent(front: ProxyClient, broker: EmbeddedBroker) -> None:
    persister = Persister(broker)
    async with asyncio.timeout(30), front.http.get(front.url + "/live", headers=bearer(user_token())) as answer:
        assert answer.content_type == "text/event-stream"
        await until(answer, b": live")
        for value in (20.25, 21.25, 22.25):
            query = asyncio.get_running_loop().time()
            await persister.broadcast(make_reading(value, TS + int(value)))
            await until(answer, str(value).encode())
            assert asyncio.get_running_loop().time() - query < 2


async def until(answer: aiohttp.ClientResponse, text: bytes) -> None:
    while text not in await answer.content.readline():
        assert not answer.content.at_eof()


class Interrupted:
    """A history that fails after a third of the rows, until `mended` is set."""

    def __init__(self) -> None:
        self.mended = False
        self._batches = 0
        self._read_batch = Places.batch

    def again(self) -> None:
        self._batches = 0

    async def batch(self, places: Places, *arguments: Any) -> Any:
        self._batches += 1
        if self._batches > 2 and not self.mended:
            raise HistoryUnavailable("MongoDB is away")
        return await self._read_batch(places, *arguments)


@pytest.fixture
async def cut_off(monkeypatch: pytest.MonkeyPatch, mongodb_database: Mongo) -> Interrupted:
    async with open_store(mongodb_database) as store:
        await store.insert(*(make_reading(n, TS + n) for n in range(ROWS)))
    interrupted = Interrupted()

    async def batch(self: Places, *arguments: Any) -> Any:
        return await interrupted.batch(self, *arguments)

    monkeypatch.setattr(from_mongodb, "FIRST_READINGS", ROWS // 6)
    monkeypatch.setattr(reading, "FIRST_READINGS", ROWS // 6)
    monkeypatch.setattr(reading, "STREAM_READINGS", ROWS // 6)
    monkeypatch.setattr(Places, "batch", batch)
    return interrupted


@pytest.fixture(scope="session")
def node() -> str:
    return node_with(HERE, "jose")  # any package; HTTP/2 is built into Node.js


def outcomes() -> dict[str, list[str]]:
    """Return what the page says about a cut export, over HTTP/1.1 and HTTP/2, by proxy."""
    rows = re.findall(r"^\| (\w+)[\w ]* [\d.]+ \| ([\w ]+) \| ([\w ]+) \|$", page(PAGE), re.MULTILINE)
    return {name.lower(): seen for name, *seen in rows}


@pytest.mark.parametrize("kind", PROGRAMS)
async def test_a_cut_export_is_detected_as_the_page_says(
    kind: str, tmp_path: Path, broker: EmbeddedBroker, mongodb_database: Mongo, cut_off: Interrupted, node: str
) -> None:
    with_http2 = {" ssl crt": " alpn h2,http/1.1 ssl crt"} if kind == "haproxy" else {}
    async with (
        origin(broker, mongodb_database) as port,
        running_proxy(tmp_path, kind, port, changes=with_http2) as front,
    ):
        url, token = f"{front.url}/readings?{urlencode(EXPORT)}", user_token()
        async with front.http.get(url, headers=bearer(token)) as answer:
            assert answer.status == 200
            try:
                assert (await answer.read()).count(b"\n") == ROWS // 3
                over_http1 = "taken for whole"
            except aiohttp.ClientPayloadError:
                over_http1 = "seen as cut off"
        cut_off.again()
        query = {"URL": url, "TOKEN": token, "CERTIFICATE": str(front.certificate)}
        result = await run_json(node, str(HERE / "over_http2.js"), environment=query)
        assert result["status"] == 200
        if result["end"] == "whole":
            assert result["lines"] == ROWS // 3
        over_http2 = {"whole": "taken for whole", "cut off": "seen as cut off"}[result["end"]]
    assert [over_http1, over_http2] == outcomes()[kind]


async def test_the_end_line_distinguishes_a_complete_export_from_one_cut_by_caddy(
    tmp_path: Path, broker: EmbeddedBroker, mongodb_database: Mongo, cut_off: Interrupted
) -> None:
    async with origin(broker, mongodb_database) as port, running_proxy(tmp_path, "caddy", port) as front:
        for cut_off.mended in (False, True):
            query = {**EXPORT, "end": "true"}
            async with front.http.get(front.url + "/readings", params=query, headers=bearer(user_token())) as answer:
                last = (await answer.read()).splitlines()[-1]
            assert (last == b'{"end":true,"count":%d}' % ROWS) is cut_off.mended


async def test_pings_keep_a_socket_through_it_and_a_silence_beyond_its_time_out_ends_it(
    tmp_path: Path, broker: EmbeddedBroker, mongodb_database: Mongo
) -> None:
    async def lives(kind: str, ping_interval_s: float) -> bool:
        quick = {"120s": "2s"} if kind in ("nginx", "haproxy") else {}
        async with (
            origin(broker, mongodb_database, ping_interval_s=ping_interval_s) as port,
            running_proxy(tmp_path / str(ping_interval_s), kind, port, changes=quick) as front,
            front.http.ws_connect(front.url + "/socket.io/?EIO=4&transport=websocket") as device,
        ):
            await device.send_str("40" + json.dumps({"token": ISSUING.device()}))
            loop = asyncio.get_running_loop()
            ends = loop.time() + 6
            while (left := ends - loop.time()) > 0:
                try:
                    message = await device.receive(timeout=left)
                except TimeoutError:
                    return True
                if message.type is not aiohttp.WSMsgType.TEXT:
                    return False
                if message.data == "2":
                    await device.send_str("3")
            return True

    kinds = [(kind, every) for kind in PROGRAMS for every in (0.5, 30.0)]
    found = await asyncio.gather(*(lives(*one) for one in kinds))
    # The other two have no timeout.
    assert dict(zip(kinds, found, strict=True)) == {
        (kind, every): every < 2 or kind in ("apache", "caddy") for kind, every in kinds
    }
