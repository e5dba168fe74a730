"""The test suites of the Engine.IO and Socket.IO protocols, as far as they apply to this server.

Not here, and why:
- HTTP long-polling, the upgrade from it, its payloads and `400` for its errors: WebSocket is the only transport;
- binary events, binary acknowledgements and attachments: this protocol has none; they close (test_device_socket.py);
- custom namespaces, several at once, connecting and leaving one: there is `/` only, another one is refused with
  `Invalid namespace` and closes;
- CONNECT without `auth`, for everybody: refused, for every session has an owner;
- a client's ping packet with `probe`, packets `5` (upgrade) and `6` (noop): they belong to upgrades;
- an invalid packet that closes at once: here it is counted, and the socket closes at the eleventh, because clients of
  other versions send packets that are not known here (test_device_socket.py);
- events from the server with acknowledgements, broadcasts and rooms: the server says only what README lists;
- heartbeats within 300 ms: times are settings; that a silent client is cut off is in test_device_socket.py.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from testing.waiting import eventually
from tests.gateway.fakes import FakeBroker
from tests.gateway.harness import ISSUING, RunningGateway, closed, gateway


@pytest.fixture
async def running(fake_broker: FakeBroker) -> AsyncIterator[RunningGateway]:
    fake_broker.outgoing.auto_confirm = True
    async with gateway(fake_broker, ping_interval_seconds=0.6, ping_timeout_seconds=0.4) as found:
        yield found


def connect_packet() -> str:
    return "40" + json.dumps({"token": ISSUING.device()})


async def opened(running: RunningGateway) -> tuple[aiohttp.ClientWebSocketResponse, dict[str, Any]]:
    socket = await running.http.ws_connect(f"{running.url}/socket.io/?EIO=4&transport=websocket")
    text = await socket.receive_str(timeout=5)
    assert text[0] == "0"
    return socket, json.loads(text[1:])


# Engine.IO


async def test_the_handshake_tells_id_upgrades_times_and_size(running: RunningGateway) -> None:
    socket, hello = await opened(running)
    assert sorted(hello) == ["maxPayload", "pingInterval", "pingTimeout", "sid", "upgrades"]
    assert isinstance(hello["sid"], str)
    assert (hello["upgrades"], hello["pingInterval"], hello["pingTimeout"]) == ([], 600, 400)
    assert hello["maxPayload"] > 1_000_000
    await socket.close()


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?transport=websocket",
        "?EIO=abc&transport=websocket",
        "?EIO=3&transport=websocket",
        "?EIO=4",
        "?EIO=4&transport=abc",
        "?EIO=4&transport=polling",
    ],
)
async def test_a_handshake_of_another_version_or_transport_is_refused(running: RunningGateway, query: str) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
        await running.http.ws_connect(f"{running.url}/socket.io/{query}")
    assert raised.value.status == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_other_methods_are_refused(running: RunningGateway, method: str) -> None:
    url = f"{running.url}/socket.io/?EIO=4&transport=websocket"
    async with running.http.request(method, url) as response:
        assert response.status in (400, 405)


async def test_the_server_pings_and_a_client_that_pongs_stays(running: RunningGateway) -> None:
    socket, _ = await opened(running)
    await socket.send_str(connect_packet())
    assert (await socket.receive_str(timeout=5)).startswith("40{")
    for _ in range(3):
        assert await socket.receive_str(timeout=5) == "2"
        await socket.send_str("3")
    await socket.close()


async def test_a_client_that_does_not_pong_is_closed(running: RunningGateway) -> None:
    socket, _ = await opened(running)
    await socket.send_str(connect_packet())
    _, texts = await closed(socket)
    assert texts[-1] == "2"


async def test_the_close_packet_closes(running: RunningGateway) -> None:
    socket, _ = await opened(running)
    await socket.send_str("1")
    code, _ = await closed(socket)
    assert code == 1000


# Socket.IO


async def test_the_last_slash_of_the_path_may_be_left_out(running: RunningGateway) -> None:
    socket = await running.http.ws_connect(f"{running.url}/socket.io?EIO=4&transport=websocket")
    assert (await socket.receive_str(timeout=5)).startswith("0{")
    await socket.send_str(connect_packet())
    assert (await socket.receive_str(timeout=5)).startswith("40{")
    await socket.close()


async def test_a_connect_is_answered_with_an_id(running: RunningGateway) -> None:
    socket, _ = await opened(running)
    await socket.send_str(connect_packet())
    answer = await socket.receive_str(timeout=5)
    assert answer.startswith("40")
    assert list(json.loads(answer[2:])) == ["sid"]
    await socket.close()


async def test_a_connect_without_credentials_is_refused_with_a_message_and_data(running: RunningGateway) -> None:
    socket, _ = await opened(running)
    await socket.send_str("40")
    code, texts = await closed(socket)
    assert code == 1008
    refusal = json.loads(texts[-1].removeprefix("44"))
    assert (sorted(refusal), refusal["data"]) == (["data", "message"], {"code": "unauthorized"})


async def test_another_namespace_is_invalid(running: RunningGateway) -> None:
    socket, _ = await opened(running)
    await socket.send_str("40/random," + json.dumps({"token": ISSUING.device()}))
    _, texts = await closed(socket)
    assert texts == ['44/random,{"message":"Invalid namespace"}']


async def test_a_disconnect_ends_the_session(running: RunningGateway) -> None:
    socket, _ = await opened(running)
    await socket.send_str(connect_packet())
    await socket.receive_str(timeout=5)
    await socket.send_str("41")
    code, _ = await closed(socket)
    assert code == 1000

    async def ended() -> bool:
        return running.count("connections") == 0

    await eventually(ended, "the session has ended")


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ('42["reading",{"value":1}]', None),
        ('420["reading",{"value":1}]', '430[{"status":"accepted","accepted":1}]'),
        ('42456["reading",{"value":1}]', '43456[{"status":"accepted","accepted":1}]'),
        ('42/,7["reading",{"value":1}]', '437[{"status":"accepted","accepted":1}]'),
    ],
)
async def test_an_event_is_acknowledged_under_its_own_id_if_it_has_one(
    running: RunningGateway, sent: str, answered: str | None
) -> None:
    socket, _ = await opened(running)
    await socket.send_str(connect_packet())
    await socket.receive_str(timeout=5)
    await socket.send_str(sent)
    if answered is None:
        await socket.send_str('421["nothing"]')
        answer = await socket.receive_str(timeout=5)
        assert answer.startswith('431[{"status":"rejected"')
    else:
        assert await socket.receive_str(timeout=5) == answered
    await socket.close()


@pytest.mark.parametrize("number", ["9" * 18, "1" * 19, "0" * 40])
@pytest.mark.parametrize("event", ['["reading",{"value":1}]', "{}"])
@pytest.mark.parametrize("head", ["42", "42/,", "451-"])
async def test_an_acknowledgement_bears_the_whole_id_or_there_is_none(
    running: RunningGateway, number: str, event: str, head: str
) -> None:
    socket, _ = await opened(running)
    await socket.send_str(connect_packet())
    await socket.receive_str(timeout=5)
    await socket.send_str(head + number + event)
    await socket.send_str('425["nothing"]')
    taken = len(number) <= 18
    expected = {f"43{number}", "435"} if taken else {"435"}
    answers = [text async for text in texts_of(socket, len(expected))]
    assert {text.partition("[")[0] for text in answers} == expected
    assert running.count("malformed_total") == (not taken)
    await socket.close()


async def texts_of(socket: aiohttp.ClientWebSocketResponse, count: int) -> AsyncIterator[str]:
    """Give the next texts that are no pings."""
    while count:
        text = await socket.receive_str(timeout=5)
        if text != "2":
            count -= 1
            yield text


@pytest.mark.parametrize("packet", ["4abc", "42{}", "4", "7", "abc", "42[]", "4/", "43[]", "44{}"])
async def test_an_invalid_packet_does_no_harm(running: RunningGateway, packet: str) -> None:
    socket, _ = await opened(running)
    await socket.send_str(connect_packet())
    await socket.receive_str(timeout=5)
    await socket.send_str(packet)
    await socket.send_str('425["reading",{"value":1}]')
    assert await socket.receive_str(timeout=5) == '435[{"status":"accepted","accepted":1}]'
    await socket.close()
