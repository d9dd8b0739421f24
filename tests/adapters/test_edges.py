"""Edge cases of an adapter: names that lead elsewhere, streams in crumbs, programs that end in the middle of things."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from networkio_asyncio import NodeClosed, Receipt
from networkio_testing import Chaos, ChaosProxy
from tests.adapters.helpers import bounded, connected, node, read_all, until

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


class Names:
    """A directory of names for this process; everybody else's are looked up as ever."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.leads_to: list[str] = []
        self.asked = 0
        self._ask: Callable[..., list[Any]] = socket.getaddrinfo
        patch.setattr(socket, "getaddrinfo", self._answer)

    def asked_since(self, count: int) -> bool:
        """Was it asked so often?"""
        return self.asked >= count

    def _answer(self, host: object, port: Any, *arguments: Any, **options: Any) -> list[Any]:
        if host not in ("service.localhost", b"service.localhost"):
            return self._ask(host, port, *arguments, **options)
        self.asked += 1
        if not self.leads_to:
            raise socket.gaierror(socket.EAI_AGAIN, "not now")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port))) for address in self.leads_to]


@bounded(20)
async def test_a_name_is_looked_up_for_each_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may not be there yet, lead to a machine where nobody listens, and later to the right one."""
    names = Names(monkeypatch)
    async with node("server") as server, node("client") as client:
        port = (await server.listen("127.0.0.1", 0)).port
        peer = await client.connect("service.localhost", port, "server")
        await peer.send("waits for it")
        for leads_to in ([], ["127.0.0.2"]):
            asked, names.leads_to = names.asked, leads_to
            while names.asked < asked + 2:
                await anyio.sleep(0.002)
            assert not peer.connected
        names.leads_to = ["127.0.0.1"]
        assert await server.peer("client").read() == "waits for it"


@bounded(20)
async def test_of_the_addresses_of_a_name_a_dead_one_in_front_is_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch)
    names.leads_to = ["127.0.0.2", "127.0.0.3", "127.0.0.1"]
    async with node("server") as server, node("client") as client:
        port = (await server.listen("127.0.0.1", 0)).port
        peer = await client.connect("service.localhost", port, "server")
        await peer.wait_connected()
        assert names.asked == 1
        assert peer.session.connections == 1


@bounded(30)
async def test_a_stream_that_comes_in_crumbs_brings_the_same(anyio_backend: str) -> None:
    async with node("server") as server, node("client") as client:
        port = (await server.listen("127.0.0.1", 0)).port
        async with ChaosProxy("127.0.0.1", port, chaos=Chaos(chunk=7)) as proxy:
            near = await client.connect("127.0.0.1", proxy.port, "server")
            far = server.peer("client")
            said = ["", "x", {"k": [1, None]}, b"bytes", "y" * 2000]
            for item in said:
                await near.send(item)
                await far.send(item)
            assert await read_all(far, len(said)) == said
            assert await read_all(near, len(said)) == said
            assert near.session.connections == 1


@bounded(20)
async def test_receipts_that_wait_when_their_node_is_left_end_with_it_each_once() -> None:
    ended: list[str] = []

    async def wait(receipt: Receipt) -> None:
        try:
            await receipt.read()
        except NodeClosed:
            ended.append("closed")

    async with anyio.create_task_group() as tasks, connected() as pair:
        for number in range(200):
            tasks.start_soon(wait, await pair.near.send(number))
        await until(lambda: len(list(pair.near.session.receipts.all())) == 200)
    assert ended == ["closed"] * 200


#: what a program does that ends in its handler, or in its block
PROGRAM = """
import asyncio, sys
from networkio_asyncio import Config, Node

async def main(port, how):
    async with Node("client", config=Config(linger=0.2, drain_timeout=0.2)) as here:
        peer = await here.connect("127.0.0.1", port, "server")
        async def handle(message):
            print(message.data, message.redelivered, flush=True)
            if message.data == 3 and how == "exit":
                sys.exit(7)
            if message.data == 3 and how == "error in the block":
                stop.set_result(None)
                await asyncio.sleep(60)
            if message.data == 5:
                stop.set_result(None)
        stop = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(here.serve(handle))
        try:
            await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
            if how == "error in the block":
                raise ValueError("in the block")
        finally:
            serving.cancel()
        await here.peer("server").drain(1)

asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [("exit", 7), ("error in the block", 1)])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the program's is what matters
@bounded(60)
async def test_a_program_that_ends_inside_of_a_handler_has_not_acknowledged_what_it_was_at(how: str, code: int) -> None:
    """Where it says goodbye, what it had acknowledged does not come again; where it cannot, that comes flagged."""
    async with node("server", drain_timeout=5) as server:
        port = (await server.listen("127.0.0.1", 0)).port
        peer = server.peer("client")
        for number in range(1, 6):
            await peer.send(number)
        printed = []
        for what in (how, "finish"):
            done = await anyio.run_process([sys.executable, "-c", PROGRAM, str(port), what], cwd=ROOT, check=False)
            printed.append(done.stdout.decode().split("\n")[:-1])
            assert done.returncode == (code if what == how else 0), done.stderr.decode()
            assert (b"ValueError: in the block" in done.stderr) is (what == "error in the block")
        assert printed[0] == ["1 False", "2 False", "3 False"]
        assert printed[1][-3:] == ["3 True", "4 True", "5 True"]
        again = [[]] if how == "error in the block" else [[], ["2 True"], ["1 True", "2 True"]]
        assert printed[1][:-3] in again
        await peer.drain(5)
        assert peer.session.ledger.read == 5
