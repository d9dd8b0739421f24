"""A thousand messages through a proxy that cuts the connection after every 3,000 bytes or so: nothing is lost.

Both nodes and the proxy run in this one process, to make it short; they talk over real sockets all the same.  You see
how often the connection was cut, and that every message came once and in order.

    python examples/survive_a_cut.py
"""

import anyio

from networkio_asyncio import Node, Peer
from networkio_testing.proxy import Chaos, ChaosProxy

MESSAGES = 1000


async def send(peer: Peer) -> None:
    for number in range(MESSAGES):
        await peer.send({"number": number})
    ledger = await peer.drain()  # until the other side has read everything
    print(f"{ledger.accepted} sent, {ledger.read} read, {ledger.failed} failed")


async def receive(peer: Peer) -> None:
    numbers = [(await peer.read())["number"] for _ in range(MESSAGES)]
    print("once and in order:", numbers == list(range(MESSAGES)))


async def main() -> None:
    async with Node("server-001") as server, Node("client-123") as client:
        listener = await server.listen("127.0.0.1", 0)
        async with ChaosProxy("127.0.0.1", listener.port, chaos=Chaos(cut_every=3000)) as proxy:
            peer = await client.connect(proxy.host, proxy.port, "server-001")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send, peer)
                tasks.start_soon(receive, server.peer("client-123"))
            print(f"the connection was cut {proxy.cuts} times")


if __name__ == "__main__":
    anyio.run(main)
