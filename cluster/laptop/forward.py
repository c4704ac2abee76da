"""Brings a port of a namespace out: listens on a socket made outside, connects inside.

Run in the namespace: ``forward.py DESCRIPTOR PORT``.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import suppress


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def _serve(descriptor: int, port: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", port)
        except OSError:  # the head is down for now
            writer.close()
            return
        await asyncio.gather(_copy(reader, back), _copy(there, writer))
        for end in (writer, back):
            end.close()

    server = await asyncio.start_server(connected, sock=socket.socket(fileno=descriptor))
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
