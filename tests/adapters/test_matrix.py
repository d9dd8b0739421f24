"""Every driver against every other, through a proxy that cuts: each message ends once, in order, and as it should.

Both sides send plain numbers, requests, messages that will be rejected, and some whose time to live is over at once;
both read at the same time.  A side runs in a thread of its own, with its own event loop if it has one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from anyio.from_thread import start_blocking_portal

import networkio_asyncio
import networkio_threads
from networkio_proto import MessageRejected, Outcome
from networkio_testing.proxy import Chaos, ChaosProxy
from tests.adapters.helpers import HASTY

DRIVERS = ["asyncio", "trio", "threads"]

#: messages each way
COUNT = 2000


@pytest.fixture
def nothing_leaks() -> None:
    """The loops are made and ended in here."""


def kind_of(number: int) -> str:
    """What is done with a message."""
    return {25: "brief", 50: "rejected", 75: "request"}.get(number % 100, "plain")


@dataclass
class Side:
    """What one end of the conversation has done and seen."""

    name: str
    other: str
    #: set when both sides are done: only then may either leave
    over: threading.Event
    #: (number, kind) of what was read, in order
    got: list[tuple[int, str]] = field(default_factory=list)
    replies: dict[int, Any] = field(default_factory=dict)
    receipts: dict[int, Any] = field(default_factory=dict)
    ledger: Any = None
    port: int = 0
    dial: int = 0
    error: BaseException | None = None

    # -- with threads ---------------------------------------------------------------------------------------------

    def threads(self) -> None:
        with networkio_threads.Node(self.name, config=HASTY) as node:
            if self.dial:
                node.connect("127.0.0.1", self.dial, self.other)
            else:
                self.port = node.listen("127.0.0.1", 0).port
            peer = node.peer(self.other)
            reader = threading.Thread(target=self.read_in_thread, args=(peer,))
            reader.start()
            for number in range(COUNT):
                kind = kind_of(number)
                if kind == "request":
                    self.replies[number] = peer.request([number, kind])
                else:
                    self.receipts[number] = peer.send([number, kind], ttl=1e-6 if kind == "brief" else None)
            peer.send(None)
            reader.join()
            self.ledger = peer.drain(20)
            self.over.wait(40)

    def read_in_thread(self, peer: networkio_threads.Peer) -> None:
        while True:
            with peer.receive() as message:
                if message.data is None:
                    return
                self.see(message)
                if message.wants_reply:
                    message.reply(message.data[0] * 2)

    # -- with an event loop -----------------------------------------------------------------------------------------

    async def looping(self) -> None:
        async with networkio_asyncio.Node(self.name, config=HASTY) as node, anyio.create_task_group() as tasks:
            if self.dial:
                await node.connect("127.0.0.1", self.dial, self.other)
            else:
                self.port = (await node.listen("127.0.0.1", 0)).port
            peer = node.peer(self.other)
            read = anyio.Event()
            tasks.start_soon(self.read_in_task, peer, read)
            for number in range(COUNT):
                kind = kind_of(number)
                if kind == "request":
                    self.replies[number] = await peer.request([number, kind])
                else:
                    self.receipts[number] = await peer.send([number, kind], ttl=1e-6 if kind == "brief" else None)
            await peer.send(None)
            await read.wait()
            self.ledger = await peer.drain(20)
            while not self.over.is_set():
                await anyio.sleep(0.005)

    async def read_in_task(self, peer: networkio_asyncio.Peer, read: anyio.Event) -> None:
        while not read.is_set():
            async with await peer.receive() as message:
                if message.data is None:
                    read.set()
                    break
                self.see(message)
                if message.wants_reply:
                    await message.reply(message.data[0] * 2)

    # -- with both --------------------------------------------------------------------------------------------------

    def see(self, message: Any) -> None:
        number, kind = message.data
        assert not message.redelivered
        assert message.attempt == 1
        assert all(kind_of(missing - 1) for gap in message.gap for missing in range(gap.first, gap.last + 1))
        self.got.append((number, kind))
        if kind == "rejected":
            message.reject(f"no {number}", number)

    def run(self, driver: str) -> None:
        calls: dict[str, Callable[[], object]] = {
            "threads": self.threads,
            "asyncio": lambda: anyio.run(self.looping, backend="asyncio"),
            "trio": lambda: anyio.run(self.looping, backend="trio"),
        }
        try:
            calls[driver]()
        except BaseException as error:
            self.error = error


def wait_for(condition: Callable[[], Any], sides: tuple[Side, Side], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, [(len(side.got), len(side.receipts)) for side in sides]
        assert not sides[0].error, sides[0].error
        assert not sides[1].error, sides[1].error
        time.sleep(0.005)


def verify(sender: Side, reader: Side) -> None:
    """What one side has sent, and the other has read."""
    expired = {number for number, receipt in sender.receipts.items() if receipt.outcome is Outcome.EXPIRED}
    assert all(kind_of(number) == "brief" for number in expired)
    assert reader.got == [(number, kind_of(number)) for number in range(COUNT) if number not in expired]
    assert sender.replies == {number: number * 2 for number in range(COUNT) if kind_of(number) == "request"}
    rejected = [number for number in range(COUNT) if kind_of(number) == "rejected"]
    for number in rejected:
        error = sender.receipts[number].failure.error(sender.receipts[number].sequence)
        assert isinstance(error, MessageRejected)
        assert (error.code, error.reason) == (number, f"no {number}")
    ledger = sender.ledger
    replies = len(reader.replies)
    assert (ledger.rejected, ledger.expired, ledger.unread) == (len(rejected), len(expired), 0)
    assert ledger.read == ledger.accepted - len(rejected) - len(expired)
    assert ledger.accepted == COUNT + 1 + replies


@pytest.mark.slow
@pytest.mark.parametrize("dialer", DRIVERS)
@pytest.mark.parametrize("acceptor", DRIVERS)
def test_every_driver_keeps_its_word_to_every_other(acceptor: str, dialer: str) -> None:
    over = threading.Event()
    sides = there, here = Side("acceptor", "dialer", over), Side("dialer", "acceptor", over)
    threads = [
        threading.Thread(target=side.run, args=(driver,), daemon=True)
        for side, driver in ((there, acceptor), (here, dialer))
    ]
    threads[0].start()
    wait_for(lambda: there.port, sides, 5)
    with start_blocking_portal() as portal:
        proxy = portal.call(lambda: ChaosProxy("127.0.0.1", there.port, chaos=Chaos(cut_every=12_000), seed=9))
        with portal.wrap_async_context_manager(proxy):
            here.dial = proxy.port
            threads[1].start()
            try:
                wait_for(lambda: there.ledger is not None and here.ledger is not None, sides, 40)
                verify(here, there)
                verify(there, here)
                assert proxy.cuts > 5
            finally:
                over.set()
                for thread in threads:
                    thread.join(10)
    assert not [side.error for side in sides if side.error]
