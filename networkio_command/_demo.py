"""The demonstration: two processes that talk while a proxy keeps cutting their connection.

Theory of operation
-------------------
The parent runs the chaos proxy and two children, each a process of this module with one *part* to play.  A child sends
its messages, ends the conversation, and reads until the other has ended too; so what the other never got is known at
the end of the stream, not after some timeout.  Each child judges what it reads by itself: the content follows from the
number, so nothing that the two processes share could hide a mistake.

A child tells the parent where it stands in lines of JSON on its standard output.  Its standard input is a leash: when
the parent closes it, or dies, the child leaves.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from networkio_asyncio import Node, Peer
from networkio_proto import NetworkioError
from networkio_testing.proxy import Chaos, ChaosProxy

from ._terminal import StatusLine, bar, plural

__all__ = ["Ledger", "run"]

SERVER, CLIENT = "server-001", "client-123"

#: how often a child tells where it stands, and the bar moves (seconds)
_REFRESH = 0.1

#: a child gives up when nothing has moved for so long (seconds); the longest back-off is half of it
_STALLED = 60.0

#: a child that was let off the leash has so long to leave (seconds)
_GRACE = 5.0

#: how a child is started, its part follows as the last argument
_CHILD = [sys.executable, "-m", "networkio_command._demo"]


class DemoError(Exception):
    """The demonstration could not be brought to its end."""


@dataclass
class Ledger:
    """What became of all messages, both directions together."""

    sent: int = 0
    read: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    reconnects: int = 0
    seconds: float = 0.0

    @property
    def flawless(self) -> bool:
        """Was every message read, once and in order?"""
        return self.read == self.sent and not (self.lost or self.duplicated or self.out_of_order)

    def lines(self) -> list[str]:
        """For people."""
        return [f"  {name:12} {value:>12,}" for name, value in asdict(self).items()]


# -- a child ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """What a child is to do; it crosses the border between the processes as JSON."""

    name: str
    peer: str
    messages: int
    seed: int
    #: where to dial; None: listen
    port: int | None = None


def text_of(seed: int, sender: str, number: int) -> str:
    """The content of a message, 0 to 30 characters, as both sides work it out."""
    digest = blake2b(f"{seed}/{sender}/{number}".encode(), digest_size=16).hexdigest()
    return digest[: number % 31]


class Tally:
    """What a child has read, and how that compares with what it should have."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._seen = bytearray(part.messages)
        self._highest = -1
        self.duplicated = 0
        self.out_of_order = 0

    @property
    def lost(self) -> int:
        """What did not come (yet)."""
        return self._seen.count(0)

    def take(self, data: Any) -> None:
        """One more message; raises DemoError if nobody sent it like this."""
        part = self._part
        match data:
            case {"number": int(number), "text": str(text)} if 0 <= number < part.messages:
                if text != text_of(part.seed, part.peer, number):
                    raise DemoError(f"message {number} from {part.peer} arrived with another content: {text!r}")
            case _:
                raise DemoError(f"{part.peer} never sent {data!r}")
        if self._seen[number]:
            self.duplicated += 1
        elif number < self._highest:
            self.out_of_order += 1
        self._seen[number] = 1
        self._highest = max(self._highest, number)


async def play(part: Part) -> None:
    """A child's life: talk, tell, and wait to be let go."""
    async with Node(part.name) as node:
        if part.port is None:
            listener = await node.listen("127.0.0.1", 0)
            tell(port=listener.port)
            peer = node.peer(part.peer)
        else:
            peer = await node.connect("127.0.0.1", part.port, part.peer)
        tally = Tally(part)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_telling, peer, tally)
            async with anyio.create_task_group() as talk:
                talk.start_soon(send_all, peer, part)
                async for message in peer:
                    tally.take(message.data)
            tasks.cancel_scope.cancel()
        tell(**standing(peer, tally), done=True)
        await anyio.sleep_forever()


async def send_all(peer: Peer, part: Part) -> None:
    """Send everything, say that nothing follows, wait until it was read."""
    for number in range(part.messages):
        await peer.send({"number": number, "text": text_of(part.seed, part.name, number)})
    peer.end()
    await peer.drain()


def standing(peer: Peer, tally: Tally) -> dict[str, int]:
    """Where a child stands."""
    ledger = peer.ledger
    return {
        "sent": ledger.accepted,
        "read": ledger.read,
        "lost": tally.lost,
        "duplicated": tally.duplicated,
        "out_of_order": tally.out_of_order,
        "reconnects": max(0, peer.session.connections - 1),
    }


async def keep_telling(peer: Peer, tally: Tally) -> None:
    """Tell the parent; raises DemoError if there is nothing new for too long."""
    before, since = None, anyio.current_time()
    while True:
        now = standing(peer, tally)
        tell(**now)
        del now["reconnects"]  # connections alone are no progress
        if now != before:
            before, since = now, anyio.current_time()
        elif anyio.current_time() > since + _STALLED:
            raise DemoError(f"nothing has moved for {_STALLED:.0f} s: {peer.why()}")
        await anyio.sleep(_REFRESH)


def tell(**news: Any) -> None:
    """One line to the parent, if it still listens."""
    try:
        print(json.dumps(news), flush=True)
    except OSError:
        pass


async def on_leash(part: Part) -> None:
    """Play until standard input ends."""
    loop = asyncio.get_running_loop()
    with anyio.CancelScope() as scope:
        threading.Thread(target=watch_leash, args=(loop, scope.cancel), daemon=True).start()
        await play(part)


def watch_leash(loop: asyncio.AbstractEventLoop, leave: Callable[[], object]) -> None:
    """A thread's work: wait for the end of standard input, then leave, one way or the other."""
    while os.read(0, 4096):  # not sys.stdin, whose lock an interpreter that exits would wait for
        pass
    try:
        loop.call_soon_threadsafe(leave)
    except RuntimeError:
        return  # it is on its way out
    time.sleep(_GRACE)
    os._exit(1)


def child(argument: str) -> int:
    """The main function of a child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    try:
        with one_error():
            anyio.run(on_leash, Part(**json.loads(argument)))
    except (DemoError, NetworkioError) as error:
        tell(error=str(error))
        return 1
    return 0


@contextmanager
def one_error() -> Iterator[None]:
    """What task groups wrapped comes out as one DemoError, if it is nothing but failures that we know."""
    try:
        yield
    except BaseExceptionGroup as group:
        if group.split((DemoError, NetworkioError))[1] is not None:
            raise
        raise DemoError("; ".join(messages_of(group))) from group


def messages_of(error: BaseException) -> list[str]:
    """What the exceptions in groups of groups say."""
    if isinstance(error, BaseExceptionGroup):
        return [text for one in error.exceptions for text in messages_of(one)]
    return [str(error)]


# -- the parent -------------------------------------------------------------------------------------------------------


class Side:
    """A child, seen from the parent."""

    def __init__(self, name: str, process: anyio.abc.Process) -> None:
        assert process.stdout is not None
        self.name = name
        self._process = process
        self._lines = BufferedByteReceiveStream(process.stdout)
        #: the latest of everything that it told
        self.news: dict[str, Any] = {}
        #: when it said that it is done; 0: not yet
        self.done_at = 0.0

    async def next(self) -> None:
        """Take the next line of what it tells; raises DemoError if it failed."""
        try:
            line = await self._lines.receive_until(b"\n", 65536)
        except (anyio.IncompleteRead, anyio.EndOfStream):
            code = await self._process.wait()
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise DemoError(f"{self.name} {how} before the conversation was over") from None
        self.news |= json.loads(line)
        if "error" in self.news:
            raise DemoError(f"{self.name} failed: {self.news['error']}")

    async def follow(self) -> None:
        """Take what it tells until it is done, and notice if it is gone before it is let go."""
        while True:
            await self.next()
            if self.news.get("done"):
                self.done_at = anyio.current_time()


@asynccontextmanager
async def started(part: Part) -> AsyncIterator[Side]:
    """A child, which is gone when the block is left."""
    # in a session of its own: Ctrl-C and the terminal's other signals go to the parent only
    process = await anyio.open_process([*_CHILD, json.dumps(asdict(part))], stderr=None, start_new_session=True)
    assert process.stdin is not None
    try:
        yield Side(part.name, process)
    finally:
        with anyio.CancelScope(shield=True):
            await process.stdin.aclose()
            with anyio.move_on_after(_GRACE):
                await process.wait()
            if process.returncode is None:
                process.kill()
            await process.aclose()


async def demonstrate(messages: int, cut_every: int, seed: int, show: Progress) -> Ledger:
    """Run it; raises DemoError."""
    async with started(Part(SERVER, CLIENT, messages, seed)) as server:
        while "port" not in server.news:
            await server.next()
        chaos = Chaos(cut_every=cut_every)
        async with (
            ChaosProxy("127.0.0.1", server.news["port"], chaos=chaos, seed=seed) as proxy,
            started(Part(CLIENT, SERVER, messages, seed, proxy.port)) as client,
        ):
            began = anyio.current_time()
            async with anyio.create_task_group() as tasks:
                for side in (server, client):
                    tasks.start_soon(side.follow)
                while not (server.done_at and client.done_at):
                    await anyio.sleep(_REFRESH)
                    show(add_up(server, client, anyio.current_time() - began))
                tasks.cancel_scope.cancel()
            return add_up(server, client, max(server.done_at, client.done_at) - began)


def add_up(server: Side, client: Side, seconds: float) -> Ledger:
    """The sums of both sides."""
    news = (server.news, client.news)
    sums = {
        name: sum(side.get(name, 0) for side in news)
        for name in ("sent", "read", "lost", "duplicated", "out_of_order")
    }
    return Ledger(**sums, reconnects=client.news.get("reconnects", 0), seconds=round(seconds, 3))


class Progress:
    """What people see meanwhile, on standard error: a bar on a terminal, elsewhere a line for every tenth."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._line = StatusLine()
        self._tenths = 0

    def __call__(self, ledger: Ledger) -> None:
        part = ledger.read / self._total
        text = (
            f"{ledger.read:,} of {self._total:,} read  {plural(ledger.reconnects, 'reconnect')}  {ledger.seconds:.1f} s"
        )
        if self._line.is_terminal:
            self._line.draw(f"{bar(part)}  {text}")
        elif int(10 * part) > self._tenths:
            self._tenths = int(10 * part)
            print(f"{part:4.0%}  {text}", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the bar away."""
        self._line.clear()


def run(messages: int, cut_every: int, seed: int, *, as_json: bool) -> int:
    """The ``demo`` command; returns its exit code."""
    print(
        f"{SERVER} and {CLIENT} send each other {messages:,} messages; "
        f"the connection is cut after every {cut_every:,} bytes or so.",
        file=sys.stderr, flush=True,
    )
    progress = Progress(2 * messages)
    try:
        with one_error():
            ledger = anyio.run(demonstrate, messages, cut_every, seed, progress)
    except DemoError as error:
        progress.clear()
        print(f"networkio: {error}", file=sys.stderr)
        return 1
    finally:
        progress.clear()
    if as_json:
        print(json.dumps(asdict(ledger)))
    else:
        print("\n".join(ledger.lines()))
    if ledger.flawless:
        print("Every message was read, once and in order.", file=sys.stderr)
        return 0
    print("networkio: messages were lost, doubled or mixed up; that must not happen", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(child(sys.argv[1]))
