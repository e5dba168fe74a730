#!/usr/bin/env bash
# aiormq 7.2.4: a broker's reason for refusing a virtual host is lost.
#
# AMQP 0-9-1, connection.open: a server that refuses the user access to the virtual host answers with connection.close, a
# reply code and a text (RabbitMQ: 530, "NOT_ALLOWED - vhost telemetry not found"). aiormq expects only
# connection.open-ok at that point, treats the frame as unexpected, and raises without the code and the text: an operator
# cannot tell a misspelt vhost from a broken server. A connection.close one step later is reported in full. The peer below
# performs the handshake as RabbitMQ does and then refuses.
#
# Seen: an InvalidFrameError that names OpenOk, and neither 530 nor the text
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check aiormq==7.2.4 2>/dev/null
"$folder/venv/bin/python" - <<'P' 2>/dev/null
import asyncio, sys
import aiormq, pamqp.frame
from pamqp import commands

CAPABILITIES = {"capabilities": {"publisher_confirms": True, "consumer_cancel_notify": True}}
REFUSAL = "NOT_ALLOWED - vhost telemetry not found"

async def peer(reader, writer):
    async def send(method):
        writer.write(pamqp.frame.marshal(method, 0))
        await writer.drain()

    async def frame():
        head = await reader.readexactly(7)
        return await reader.readexactly(int.from_bytes(head[3:], "big") + 1)

    await reader.readexactly(8)
    await send(commands.Connection.Start(server_properties=CAPABILITIES, mechanisms="PLAIN", locales="en_US"))
    await frame()
    await send(commands.Connection.Tune(channel_max=2047, frame_max=131072, heartbeat=60))
    await frame()
    await frame()
    await send(commands.Connection.Close(530, REFUSAL, 10, 40))
    await reader.read(4096)
    writer.close()

async def main():
    server = await asyncio.start_server(peer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        await asyncio.wait_for(aiormq.connect(f"amqp://guest:guest@127.0.0.1:{port}/telemetry"), 10)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        print(text[:300])
        lost = "530" not in text and "telemetry not found" not in text
        sys.exit(0 if lost and type(error).__name__ == "InvalidFrameError" else 1)
    sys.exit(1)

asyncio.run(main())
P
