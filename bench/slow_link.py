"""A TCP proxy that delays requests: `python -m bench.slow_link PORT TO_PORT MILLISECONDS`."""

import asyncio
import sys
from contextlib import closing, suppress


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Forward everything in order, each chunk after the delay, without delaying the next one further."""
    loop = asyncio.get_running_loop()
    with suppress(ConnectionError):
        while data := await reader.read(1 << 20):
            if delay_s:
                loop.call_later(delay_s, writer.write, data)
            else:
                writer.write(data)
                await writer.drain()
    loop.call_later(delay_s, writer.close)


async def serve(port: int, to_port: int, delay_s: float) -> None:
    """Listen until cancelled."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", to_port)
        with closing(forth), closing(writer):
            await asyncio.gather(forward(reader, forth, delay_s), forward(back, writer, 0))

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) / 1000))
