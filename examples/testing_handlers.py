"""Tests of a program of one's own: a bank that must not pay twice, on a network that breaks, in virtual time.

The bank is on networkio_asyncio, unmodified; its tests take the fixtures that come with networkio.  You see them pass:
an hour without a connection, a process that dies between its effect and its acknowledgement, and (for programs that
block) the same on the core.  Let ``book`` not look at what was done before, and two of them fail.

    python examples/testing_handlers.py
"""

import subprocess
import sys

import anyio

from networkio_asyncio import Message, Node
from networkio_testing import SimulatedNetwork, VirtualNetwork

# -- the program ------------------------------------------------------------------------------------------------------


class Bank:
    """What a process of it finds on its disk when it starts."""

    def __init__(self) -> None:
        self.balance = 0
        self.done: set[str] = set()

    def book(self, payment: str, amount: int) -> None:
        if payment not in self.done:
            self.done.add(payment)
            self.balance += amount

    async def serve(self, node: Node) -> None:
        async def handle(message: Message) -> None:
            self.book(message.id, message.data)
            await anyio.sleep(1.0)  # the disk is slow

        await node.serve(handle)


# -- its tests --------------------------------------------------------------------------------------------------------


def test_a_payment_survives_an_hour_without_a_connection(networkio_virtual: VirtualNetwork) -> None:
    network, bank = networkio_virtual, Bank()

    async def main() -> None:
        async with network.node("bank") as node, network.node("shop") as shop, anyio.create_task_group() as tasks:
            tasks.start_soon(bank.serve, node)
            peer = await network.connect(shop, "bank")
            await peer.wait_connected()
            network.partition("bank")
            receipt = await peer.send(50)
            await anyio.sleep(3600.0)
            assert (bank.balance, peer.connected) == (0, False)
            network.heal()
            await receipt.read()
            assert bank.balance == 50
            tasks.cancel_scope.cancel()

    network.run(main)


def test_a_bank_that_crashes_does_not_pay_twice(networkio_virtual: VirtualNetwork) -> None:
    network, bank = networkio_virtual, Bank()

    async def main() -> None:
        async with network.node("shop") as shop:
            peer = await network.connect(shop, "bank")
            async with network.node("bank") as node, anyio.create_task_group() as process:
                process.start_soon(bank.serve, node)
                receipt = await peer.send(50)
                await receipt.received()
                await anyio.sleep(0.5)  # it has booked the payment, and not acknowledged it
                network.crash(node)
                process.cancel_scope.cancel()
            async with network.node("bank") as node, anyio.create_task_group() as process:
                process.start_soon(bank.serve, node)
                await receipt.read()
                assert bank.balance == 50
                process.cancel_scope.cancel()

    network.run(main)


def test_the_same_for_code_that_blocks(networkio_world: SimulatedNetwork) -> None:
    network, bank = networkio_world, Bank()
    shop, node = network.node("shop"), network.node("bank")
    receipt = shop.connect("bank", "bank").send(50)
    message = node.peer("shop").receive()
    bank.book(message.id, message.data)
    network.crash(node)
    network.restart(node).serve(lambda message: bank.book(message.id, message.data))
    receipt.read()
    assert bank.balance == 50


if __name__ == "__main__":
    sys.exit(subprocess.call([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]))
