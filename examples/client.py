"""A worker that takes notices and reads: it waits for whatever happens, and then fetches the messages that are there.

Start it before or after server.py, in another terminal.  It keeps dialling while there is no server.

    python examples/client.py [HOST PORT]
"""

import sys
from contextlib import suppress

import anyio

from networkio_asyncio import MessagesReady, Node, PeerConnected, PeerDisconnected


async def main(host: str, port: int) -> None:
    async with Node("client-123") as node:
        await node.connect(host, port, "server-001")
        async for notice in node.notifications():
            match notice:
                case PeerConnected(peer=peer):
                    print("connected to", peer.id)
                case PeerDisconnected(error=error):
                    print("not connected:", error)
                case MessagesReady(peer=peer):
                    while (data := peer.read_nowait(default=None)) is not None:
                        print(peer.id, "says", data)
                        await peer.send({"you said": data})


if __name__ == "__main__":
    host, port = sys.argv[1:] or ("127.0.0.1", "8080")
    with suppress(KeyboardInterrupt):
        anyio.run(main, host, int(port))
