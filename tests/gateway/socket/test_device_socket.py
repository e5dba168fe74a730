"""Hostile and broken clients on real sockets: each is refused, honest devices do not notice, nothing grows."""

import asyncio
import json
import re
import socket as sockets
import time
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import aiohttp
import pytest
import socketio
from structlog.testing import capture_logs

from gateway.socket import output
from gateway.socket.device_socket import MAX_MALFORMED
from readings.document import decode_document
from readings.encoder import ReadingEncoder
from testing.waiting import eventually
from tests.gateway.fakes import FakeBroker
from tests.gateway.harness import ACCEPTED, ISSUING, UPGRADE, RunningGateway, closed, gateway, reading

UPGRADE_REQUEST = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
EVENT = '["reading",{"value":1}]'


@pytest.fixture(autouse=True)
def confirming(fake_broker: FakeBroker) -> None:
    fake_broker.outgoing.auto_confirm = True


def frame(text: str) -> bytes:
    """A client's text frame; the mask is zero."""
    payload = text.encode()
    length = len(payload)
    assert 126 <= length < 65536 or length < 126
    head = bytes((0x81, 0x80 | length)) if length < 126 else b"\x81\xfe" + length.to_bytes(2, "big")
    return head + b"\0\0\0\0" + payload


def token_packet(**claims: Any) -> str:
    return "40" + json.dumps({"token": ISSUING.device(**claims)})


async def streams_on(running: RunningGateway, slowest_s: float = 1.0) -> None:
    """An honest device is served as usual."""
    async with running.connected({"token": ISSUING.device(sub="honest", device="honest")}) as client:
        for number in range(50):
            started = time.monotonic()
            assert await client.call("reading", reading(number), timeout=5) == ACCEPTED
            assert time.monotonic() - started < slowest_s


async def wait_no_sessions(running: RunningGateway) -> None:
    async def none() -> bool:
        return running.count("connections") == 0

    await eventually(none, "no session is left")


def cut(running: RunningGateway, reason: str) -> float:
    return running.registry.get_sample_value("tidegate_gateway_cut_total", {"reason": reason}) or 0.0


# Before the WebSocket


async def test_500_connections_that_never_finish_their_request_are_closed_without_disturbing_others(
    fake_broker: FakeBroker,
) -> None:
    async with gateway(fake_broker, first_request_s=1.0) as running:
        port = int(running.url.rpartition(":")[2])
        with ExitStack() as stack:
            slow = [stack.enter_context(sockets.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(500)]
            for number, one in enumerate(slow):
                one.sendall(UPGRADE_REQUEST[: number % (len(UPGRADE_REQUEST) - 4)])
            await streams_on(running)
            ends = await asyncio.gather(*(asyncio.to_thread(ending, one) for one in slow))
        assert all(ends)


def ending(one: sockets.socket) -> bool:
    try:
        return one.recv(1) == b""
    except ConnectionResetError:
        return True


async def test_a_connection_that_sent_its_request_stays(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker, first_request_s=0.3) as running, running.raw() as socket:
        await socket.receive_str(timeout=5)
        await asyncio.sleep(0.6)
        await socket.send_str("421" + EVENT)
        assert (await socket.receive_str(timeout=5)).startswith("431")


@pytest.mark.parametrize(
    ("query", "code", "says"),
    [
        ("", "websocket_only", "WebSocket only"),
        ("EIO=4", "websocket_only", "WebSocket only"),
        ("EIO=4&transport=polling", "websocket_only", "WebSocket only"),
        ("EIO=4&transport=websocket", "websocket_only", "no upgrade"),
        ("transport=websocket", "unsupported_version", "socket.io-client 3 and python-socketio 5"),
        ("EIO=3&transport=polling&t=PaQ_1&b64=1", "unsupported_version", "socket.io-client 3 and python-socketio 5"),
        ("EIO=3&transport=websocket", "unsupported_version", "socket.io-client 3 and python-socketio 5"),
        ("EIO=2&transport=polling", "unsupported_version", "WebSocket only"),
    ],
)
async def test_the_refusal_of_another_transport_or_version_gives_the_reason_in_the_body(
    stalled: RunningGateway, query: str, code: str, says: str
) -> None:
    async with stalled.http.get(f"{stalled.url}/socket.io/?{query}") as response:
        assert (response.status, response.content_type) == (400, "application/problem+json")
        problem = await response.json()
        assert problem["code"] == code
        assert says in problem["message"], "Engine.IO's own name for it"
        assert problem["message"] == problem["detail"]
    async with stalled.http.post(f"{stalled.url}/socket.io/?{query}&sid=x", data="40") as response:
        assert (response.status, response.content_type) == (400, "application/problem+json")


async def test_another_origin_is_refused(stalled: RunningGateway) -> None:
    url = f"{stalled.url}/socket.io/?EIO=4&transport=websocket"
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await stalled.http.ws_connect(url, origin="https://evil.test")
    assert refused.value.status == 400
    async with stalled.http.get(url, headers=UPGRADE | {"Origin": "https://evil.test"}) as response:
        assert (response.status, (await response.json())["message"]) == (
            400,
            "https://evil.test is not an accepted origin.",
        )


async def test_compression_is_not_accepted(stalled: RunningGateway) -> None:
    url = f"{stalled.url}/socket.io/?EIO=4&transport=websocket"
    async with stalled.http.ws_connect(url, compress=15) as socket:
        assert not socket.compress


# Before the session


async def test_a_socket_without_a_connect_is_closed_at_its_deadline(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker, connect_timeout_seconds=0.5) as running, running.unconnected() as socket:
        started = time.monotonic()
        message = await socket.receive(timeout=5)
        assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, 1013, "connect_timeout")
        assert 0.4 < time.monotonic() - started < 2.5
        assert cut(running, "no_connect") == 1


async def test_sockets_without_a_connect_are_bounded_before_their_upgrade_until_their_deadline(
    fake_broker: FakeBroker,
) -> None:
    async with (
        gateway(fake_broker, max_connections=3, connect_timeout_seconds=1.5) as running,
        AsyncExitStack() as stack,
    ):
        sockets = [await stack.enter_async_context(running.unconnected()) for _ in range(3)]
        problem = await running.not_upgraded()
        assert (problem["code"], problem["retryAfterMs"]) == ("busy", 5000)
        assert running.registry.get_sample_value("tidegate_gateway_connects_total", {"outcome": "busy"}) == 1
        for socket in sockets:
            assert (await closed(socket))[0] == 1013
        await streams_on(running)


async def test_a_second_connect_changes_nothing_and_many_end_the_socket(
    stalled: RunningGateway, fake_broker: FakeBroker
) -> None:
    async with stalled.raw() as socket:
        assert (await socket.receive_str(timeout=5)).startswith("40{")
        for device in range(MAX_MALFORMED):
            await socket.send_str(token_packet(sub=f"other-{device}", device=f"other-{device}"))
        await socket.send_str("421" + EVENT)
        assert (await socket.receive_str(timeout=5)).startswith("431")
        (stored,) = fake_broker.outgoing.messages[0].documents()
        assert decode_document(stored)["_id"]["device"] == "device-1"
        assert stalled.count("connections") == 1
        await socket.send_str(token_packet())
        assert await closed(socket) == (1008, [])
    await wait_no_sessions(stalled)


async def test_200_connects_on_one_socket_get_one_answer(stalled: RunningGateway) -> None:
    async with stalled.unconnected() as socket:
        for _ in range(200):
            await socket.send_str('40{"token":"abc"}')
        code, texts = await closed(socket)
    assert (code, len(texts)) == (1008, 1)
    assert texts[0].startswith("44{")


async def test_200_refused_sockets_leave_nothing_behind(stalled: RunningGateway) -> None:
    async def refused() -> None:
        async with stalled.unconnected() as socket:
            await socket.send_str('40{"token":"' + "a" * 1_000_000 + '"}')
            code, texts = await closed(socket, within_s=30)
            assert (code, json.loads(texts[0][2:])["data"]) == (1008, {"code": "unauthorized"})

    for _ in range(10):
        await asyncio.gather(*(refused() for _ in range(20)))
    assert cut(stalled, "refused") == 200
    await streams_on(stalled)


@pytest.mark.parametrize("namespace", ["/admin", "/admin,{}", '/x?token=1,{"token":"y"}'])
async def test_there_is_no_other_namespace(stalled: RunningGateway, namespace: str) -> None:
    async with stalled.unconnected() as socket:
        await socket.send_str("40" + namespace)
        name = namespace.partition(",")[0]
        assert await closed(socket) == (1008, [f'44{name},{{"message":"Invalid namespace"}}'])


async def test_a_connect_that_is_no_json_is_refused_for_good(stalled: RunningGateway) -> None:
    async with stalled.unconnected() as socket:
        await socket.send_str('40{"token":')
        code, (text,) = await closed(socket)
        assert (code, text[:3], json.loads(text[2:])["data"]) == (1008, "44{", {"code": "unauthorized"})


# What a socket may send


@pytest.mark.parametrize("connected", [False, True])
async def test_a_binary_frame_closes(stalled: RunningGateway, connected: bool) -> None:
    async with stalled.unconnected() as socket:
        if connected:
            await socket.send_str(token_packet())
            await socket.receive_str(timeout=5)
        await socket.send_bytes(b"x")
        assert await closed(socket) == (1003, [])
    await wait_no_sessions(stalled)


async def test_an_event_with_an_attachment_is_answered_before_the_attachment_closes(stalled: RunningGateway) -> None:
    async with stalled.raw() as socket:
        await socket.receive_str(timeout=5)
        await socket.send_str('451-7["reading",{"_placeholder":true,"num":0}]')
        await socket.send_bytes(b"x")
        code, texts = await closed(socket)
    assert (code, json.loads(texts[0].removeprefix("437"))[0]["code"]) == (1003, "invalid_reading")


@pytest.mark.parametrize("fast_lane", [True, False])
@pytest.mark.parametrize(
    "text", [b"4\xff", b'421["reading",{"value":"\xff"}]', b'421["reading",{"value":1,"\xed\xa0\x80":1}]']
)
async def test_text_that_is_no_utf8_closes(fake_broker: FakeBroker, fast_lane: bool, text: bytes) -> None:
    async with gateway(fake_broker, fast_lane=fast_lane) as running, running.raw() as socket:
        await socket.receive_str(timeout=5)
        await socket.send_frame(text, aiohttp.WSMsgType.TEXT)
        assert await closed(socket) == (1007, [])


async def test_fragments_that_add_up_beyond_the_bound_close_with_1009(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker, max_frame_bytes=100_000) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))
        writer.write(UPGRADE_REQUEST)
        await reader.readuntil(b"\r\n\r\n")
        first = True
        for _ in range(3):
            writer.write((b"\x01" if first else b"\x00") + b"\xfe" + (40_000).to_bytes(2, "big") + b"\0" * 4)
            writer.write(b"4" * 40_000)
            first = False
        received = await asyncio.wait_for(reader.read(), 5)
        assert received.endswith((1009).to_bytes(2, "big"))
        writer.close()


# How frames arrive


def masked(text: str, mask: bytes) -> bytes:
    """A client's text frame, as real clients send it."""
    whole = frame(text)
    head, payload = whole[: -len(text.encode()) - 4], text.encode()
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


async def answers_of(running: RunningGateway, pieces: list[bytes], last: int) -> list[str]:
    """The ids of the acknowledgements to what is sent in these pieces, up to that of the last."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))
    writer.write(UPGRADE_REQUEST + frame(token_packet()))
    await reader.readuntil(b"40{")
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    found = b""
    while b"43%d[" % last not in found:
        found += await asyncio.wait_for(reader.read(1 << 16), 10)
    writer.close()
    return [number.decode() for number in re.findall(rb"43(\d+)\[", found)]


@pytest.mark.parametrize("size", [1, 3, 7, 50, 10_000])
async def test_frames_are_read_however_the_network_cuts_them(stalled: RunningGateway, size: int) -> None:
    texts = [f'42{number}["reading",{{"value":{number}}}]' for number in range(1, 8)]
    texts.insert(3, '4290["readings",[' + '{"value":1},' * 200 + '{"value":1}]]')
    texts.insert(5, '4291["nothing"]')
    sent = b"".join(masked(text, bytes((number, 7, 255 - number, 0))) for number, text in enumerate(texts))
    pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
    answers = await answers_of(stalled, pieces, 7)
    assert sorted(answers) == sorted(["1", "2", "3", "90", "4", "91", "5", "6", "7"])


async def test_a_frame_with_the_longest_form_of_its_length_is_read(stalled: RunningGateway) -> None:
    payload = b'425["reading",{"value":"%b"}]' % (b"x" * 70_000)
    long = b"\x81\xff" + len(payload).to_bytes(8, "big") + b"\0\0\0\0" + payload
    answers = await answers_of(stalled, [frame('421["reading",{"value":1}]'), long, frame("426" + EVENT)], 6)
    assert sorted(answers) == ["1", "5", "6"], "5 is too long a text, so it is answered before any confirm"


async def test_a_session_that_is_quiet_keeps_no_task(stalled: RunningGateway) -> None:
    async with AsyncExitStack() as stack:
        before = len(asyncio.all_tasks())
        for number in range(20):
            token = ISSUING.device(sub=f"d{number}", device=f"d{number}")
            socket = await stack.enter_async_context(stalled.raw({"token": token}))
            await socket.receive_str(timeout=5)
            await socket.send_str('421["nothing"]')
            await socket.receive_str(timeout=5)

        async def none() -> bool:
            return len(asyncio.all_tasks()) <= before + 1  # the one that waits here

        await eventually(none, "no session has a task")
        assert stalled.count("connections") == 20


MALFORMED = [
    "46[1]",
    "43[1]",
    "431[]",
    "44{}",
    "461-[1]",
    "49",
    "4",
    "0",
    "2probe",
    "5",
    "6",
    "x",
    "",
    "3",
    "42/x,1[1]",
]


async def test_5000_malformed_packets_close_the_socket_and_write_one_line(stalled: RunningGateway) -> None:
    with capture_logs() as lines:
        for _ in range(10):
            async with stalled.raw() as socket:
                await socket.receive_str(timeout=5)
                for number in range(500):
                    await socket.send_str(MALFORMED[number % len(MALFORMED)])
                assert await closed(socket) == (1008, [])
    assert len(lines) == 1
    assert cut(stalled, "malformed") == 10
    assert stalled.count("malformed_total") == 110
    await streams_on(stalled)


async def test_a_few_malformed_packets_are_tolerated(stalled: RunningGateway) -> None:
    async with stalled.raw() as socket:
        await socket.receive_str(timeout=5)
        for text in MALFORMED[:10]:
            await socket.send_str(text)
        await socket.send_str("421" + EVENT)
        assert (await socket.receive_str(timeout=5)).startswith("431")


async def test_attachments_that_never_come_hold_nothing(stalled: RunningGateway) -> None:
    async with stalled.raw() as socket:
        await socket.receive_str(timeout=5)
        for number in range(500):
            await socket.send_str(f'45{9}-{number}["reading",{{"_placeholder":true,"num":0}}]')
            answer = json.loads((await socket.receive_str(timeout=5)).removeprefix(f"43{number}"))
            assert answer[0]["code"] == "invalid_reading"


# Clients that do not read, close or answer


async def test_a_client_that_never_reads_is_cut_off(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker, max_unread_bytes=300_000, unread_timeout_seconds=1.0) as running:
        writer = await unreading_client(running)
        bad = frame("421" + json.dumps(["readings", [0] * 1000]))  # answered with 100 kB
        with pytest.raises(ConnectionError):
            await write_forever(writer, bad)
        assert cut(running, "unread") == 1
        await wait_no_sessions(running)
        await streams_on(running)
        writer.close()


async def write_forever(writer: asyncio.StreamWriter, data: bytes) -> None:
    async with asyncio.timeout(20):
        while True:
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0)


async def unreading_client(running: RunningGateway, **claims: Any) -> asyncio.StreamWriter:
    """A session whose client reads nothing from here on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]), limit=1024)
    writer.write(UPGRADE_REQUEST + frame(token_packet(**claims)))
    await reader.readuntil(b"40{")
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # every socket transport has it
    return writer


async def test_a_client_that_reads_slowly_is_read_slowly_and_loses_no_answer(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker, device_readings_per_second=1_000_000) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]), limit=65536)
        writer.write(UPGRADE_REQUEST + frame(token_packet()))
        await reader.readuntil(b"40{")
        bad = json.dumps(["readings", [0] * 1000])

        async def send() -> None:
            for number in range(100):
                writer.write(frame(f"42{number}{bad}"))
                await writer.drain()

        sending = asyncio.ensure_future(send())
        found = b""
        while found.count(b'"partial"') != 100:
            found += await asyncio.wait_for(reader.read(1 << 20), 10)
        await sending
        assert cut(running, "unread") == 0
        writer.close()


async def test_a_client_that_does_not_close_is_cut_off(
    stalled: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "CLOSE_TIMEOUT_S", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(stalled.url.rpartition(":")[2]))
    writer.write(UPGRADE_REQUEST + frame(token_packet()) + frame("40/elsewhere,"))
    async with asyncio.timeout(2):
        assert b"\x88\x02\x03\xf0" in await until_gone(reader)
    writer.close()


async def until_gone(reader: asyncio.StreamReader) -> bytes:
    received = b""
    try:
        while more := await reader.read(1000):
            received += more
    except ConnectionResetError:
        pass
    return received


async def test_an_expired_session_ends_also_when_its_client_does_not_read(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker) as running:
        writer = await unreading_client(running, exp=int(time.time()) + 2)
        await asyncio.sleep(2)
        await wait_no_sessions(running)
        writer.close()


async def test_a_client_that_answers_no_ping_is_cut_off_and_one_that_does_stays(fake_broker: FakeBroker) -> None:
    async with (
        gateway(fake_broker, ping_interval_seconds=0.5, ping_timeout_seconds=2.0) as running,
        running.raw() as silent,
        running.connected({"token": ISSUING.device(sub="b", device="b")}) as client,
    ):
        await silent.receive_str(timeout=5)
        assert await closed(silent) == (1006, ["2"])
        await asyncio.sleep(2)
        assert await client.call("reading", reading(1), timeout=5) == ACCEPTED
        assert cut(running, "silent") == 1


@pytest.mark.parametrize("payload", [b"", b"x", b"y" * 125])
async def test_a_ping_of_a_client_is_answered_with_its_payload_whole_or_in_pieces(
    running: RunningGateway, payload: bytes
) -> None:
    ping, pong = bytes((0x89, 0x80 | len(payload))) + b"\0\0\0\0" + payload, bytes((0x8A, len(payload))) + payload
    reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))
    writer.write(UPGRADE_REQUEST + frame(token_packet()))
    await reader.readuntil(b"40{")
    async with asyncio.timeout(5):
        writer.write(ping)
        await reader.readuntil(pong)
        for byte in ping:
            writer.write(bytes((byte,)))
            await asyncio.sleep(0.001)
        await reader.readuntil(pong)
    writer.close()


async def test_a_ping_comes_when_it_is_time_however_late_a_pong_may_be(fake_broker: FakeBroker) -> None:
    async with (
        gateway(fake_broker, ping_interval_seconds=0.5, ping_timeout_seconds=60.0) as running,
        running.raw() as socket,
    ):
        assert (await socket.receive_str(timeout=20))[:2] == "40"
        for _ in range(3):
            assert await socket.receive_str(timeout=20) == "2"
            await socket.send_str("3")


# What is in flight


@pytest.mark.parametrize("bound", [{"max_in_flight_events": 3}, {"max_in_flight_bytes": 3 * len(EVENT)}])
@pytest.mark.parametrize("fast_lane", [True, False])
async def test_beyond_its_limit_in_flight_a_device_gets_busy(
    fake_broker: FakeBroker, bound: dict[str, Any], fast_lane: bool
) -> None:
    fake_broker.outgoing.auto_confirm = False
    async with gateway(fake_broker, fast_lane=fast_lane, **bound) as running, running.raw() as socket:
        await socket.receive_str(timeout=5)
        for number in range(5):
            await socket.send_str(f"42{number}{EVENT}")
        for number in (3, 4):
            assert (
                await socket.receive_str(timeout=5)
                == f'43{number}[{{"status":"retry","code":"busy","retryAfterMs":500}}]'
            )
        async with running.connected({"token": ISSUING.device(sub="b", device="b")}) as other:
            call = asyncio.ensure_future(other.call("reading", reading(1), timeout=5))
            await asyncio.sleep(0.05)
            fake_broker.outgoing.confirm_all()
            assert await call == ACCEPTED
        for number in range(3):
            assert (await socket.receive_str(timeout=5)).startswith(f"43{number}[")
        await socket.send_str(f"429{EVENT}")
        assert await socket.receive_str(timeout=5) == '439[{"status":"accepted","accepted":1}]'


@pytest.mark.parametrize("fast_lane", [True, False])
async def test_an_internal_error_is_acknowledged_and_logged_once_with_an_id(
    fake_broker: FakeBroker, monkeypatch: pytest.MonkeyPatch, fast_lane: bool
) -> None:
    def breaks(*_: object) -> bytes:
        raise RuntimeError("a fault")

    async with gateway(fake_broker, fast_lane=fast_lane) as running, running.raw() as socket:
        await socket.receive_str(timeout=5)
        with capture_logs() as lines, monkeypatch.context() as patched:
            patched.setattr(ReadingEncoder, "encode_single", breaks)
            for number in range(100):
                await socket.send_str(f"42{number}{EVENT}")
                answer = json.loads((await socket.receive_str(timeout=5)).removeprefix(f"43{number}"))[0]
                assert (answer["status"], answer["code"]) == ("retry", "unavailable")
        await socket.send_str(f"421{EVENT}")
        assert (await socket.receive_str(timeout=5)).startswith('431[{"status":"accepted"')
        assert running.count("faults_total") == 100
    assert len(lines) == 1
    assert len(lines[0]["fault"]) == 32


@pytest.mark.parametrize("fast_lane", [True, False])
async def test_a_stop_acknowledges_what_was_accepted_and_accepts_nothing_new(
    fake_broker: FakeBroker, fast_lane: bool
) -> None:
    fake_broker.outgoing.auto_confirm = False
    async with AsyncExitStack() as stack, aiohttp.ClientSession() as http:
        running = await stack.enter_async_context(gateway(fake_broker, fast_lane=fast_lane))
        socket = await http.ws_connect(f"{running.url}/socket.io/?EIO=4&transport=websocket")
        await socket.receive_str(timeout=5)
        await socket.send_str(token_packet())
        await socket.receive_str(timeout=5)
        await socket.send_str(f"421{EVENT}")
        await fake_broker.outgoing.wait_published(1)
        stopping = asyncio.ensure_future(stack.aclose())
        await asyncio.sleep(0.1)
        await socket.send_str(f"422{EVENT}")
        assert json.loads((await socket.receive_str(timeout=5))[3:])[0]["code"] == "unavailable"
        fake_broker.outgoing.confirm(0)
        assert await closed(socket) == (1001, ['431[{"status":"accepted","accepted":1}]'])
        await stopping
    assert len(fake_broker.outgoing.messages) == 1


async def test_a_client_reconnects_by_itself_when_its_gateway_stops(fake_broker: FakeBroker) -> None:
    async with AsyncExitStack() as stack, aiohttp.ClientSession() as http:
        running = await stack.enter_async_context(gateway(fake_broker))
        client = socketio.AsyncClient(http_session=http, reconnection_delay=0.1, reconnection_delay_max=0.2)
        await client.connect(running.url, auth={"token": ISSUING.device()}, transports=["websocket"])
        back = asyncio.Event()
        client.on("connect", back.set)
        started = time.monotonic()
        await stack.aclose()
        assert time.monotonic() - started < 3
        async with gateway(fake_broker, at_port=int(running.url.rpartition(":")[2])):
            await asyncio.wait_for(back.wait(), 5)
            assert await client.call("reading", reading(1), timeout=5) == ACCEPTED
            await client.disconnect()


async def test_2000_devices_reconnect_at_once(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker) as running:
        port = int(running.url.rpartition(":")[2])
        tokens = [frame("40" + json.dumps({"token": ISSUING.device(sub=f"{n}", device=f"{n}")})) for n in range(2000)]

        async def connect(token: bytes) -> asyncio.StreamWriter:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(UPGRADE_REQUEST + token)
            await asyncio.wait_for(reader.readuntil(b"40{"), 60)
            return writer

        for _ in range(2):
            writers = await asyncio.gather(*map(connect, tokens))
            assert running.count("connections") == 2000
            for writer in writers:
                writer.transport.abort()
            await wait_no_sessions(running)
        await streams_on(running)
