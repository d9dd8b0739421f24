"""A server that says Hello, and prints what its client says.

Start it, then client.py in another terminal.  The greeting waits for the client: it does not matter who starts first.
Stop either of them with Ctrl-C and start it again, and watch the other one notice and go on.

    python examples/server.py [HOST PORT]
"""

import sys
from contextlib import suppress

import anyio

from networkio_asyncio import Node


async def main(host: str, port: int) -> None:
    async with Node("server-001") as node:
        await node.listen(host, port)
        receipt = await node.send("client-123", "Hello")  # accepted: it waits until the client is there
        await receipt.read()
        print("client-123 has read the greeting")
        async for message in node.peer("client-123"):  # acknowledged when the next one is asked for
            print("client-123 says", message.data)


if __name__ == "__main__":
    host, port = sys.argv[1:] or ("127.0.0.1", "8080")
    with suppress(KeyboardInterrupt):
        anyio.run(main, host, int(port))
