"""The acknowledge-and-echo application, for both adapters: what the ``wire`` scripts are played against.

Theory of operation
-------------------
Each message is sent back, with the headers of the application and encoded or raw as it came, and then acknowledged.  A
request is answered by a reply with the same data.  The text ``reject`` is rejected with code 7, what cannot be decoded
with code 1.  When a peer has ended its outbox and everything of it was sent back, this side ends too.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import threading
from typing import Any

import networkio_asyncio
import networkio_threads
from networkio_proto import DecodeError, PeerEnded, SessionClosed

__all__ = ["add", "serve_on_asyncio", "serve_on_threads"]


def add(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "echo", help="serve the acknowledge-and-echo application that the conformance scripts talk to",
        description="Listens on loopback until it is interrupted, and prints the port when it is ready.",
    )  # fmt: skip
    parser.add_argument("port", metavar="PORT", type=int, help="0 takes a free one")
    parser.add_argument("--adapter", choices=("asyncio", "threads"), default="asyncio")
    parser.set_defaults(main=run)


def run(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    try:
        if options.adapter == "asyncio":
            asyncio.run(_until_told(options.port))
        else:
            told = threading.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: told.set())
            with networkio_threads.Node("echo", config=_config(networkio_threads.Config)) as node:
                serve_on_threads(node)
                _ready(node.listen("127.0.0.1", options.port).port)
                told.wait()
    except networkio_asyncio.NetworkioError as error:
        raise SystemExit(str(error)) from None
    return 0


async def _until_told(port: int) -> None:
    told, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    async with networkio_asyncio.Node("echo", config=_config(networkio_asyncio.Config)) as node:
        served = asyncio.ensure_future(serve_on_asyncio(node))
        _ready((await node.listen("127.0.0.1", port)).port)
        await told.wait()
        served.cancel()


def _config(kind: Any) -> Any:
    """Nobody is left to read what was echoed when the program ends."""
    return kind(drain_timeout=0.01)


def _ready(port: int) -> None:
    print(f"echo at 127.0.0.1:{port}", flush=True)


# -- the application --------------------------------------------------------------------------------------------------


def _decoded(message: Any) -> tuple[Any, bool] | None:
    """The data, and is it raw; None for what is rejected."""
    try:
        data = message.data
    except DecodeError:
        message.reject("it cannot be decoded", 1)
        return None
    if isinstance(data, str) and data == "reject":
        message.reject("as you wish", 7)
        return None
    return data, isinstance(data, bytes) and data == message.raw


def _finish(peer: Any) -> None:
    """End what the peer has ended, if nothing of it is left to be sent back."""
    session = peer.session
    if session.nothing_follows and not session.unread and not session.held:
        peer.end()


async def serve_on_asyncio(node: networkio_asyncio.Node) -> None:
    """Echo until cancelled."""

    async def handle(message: networkio_asyncio.Message) -> None:
        decoded = _decoded(message)
        if decoded is not None:
            data, raw = decoded
            try:
                if message.wants_reply:
                    await message.reply(data, raw=raw)
                else:
                    await message.peer.send(data, headers=message.headers, raw=raw)
            except SessionClosed:  # it was aborted meanwhile
                pass
            message.ack()
        _finish(message.peer)

    async def end() -> None:
        async for notice in node.notifications():
            if isinstance(notice, PeerEnded):
                _finish(notice.peer)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(end())
        await node.serve(handle)


def serve_on_threads(node: networkio_threads.Node) -> None:
    """Echo until the node is closed, in threads of its own."""

    def handle(message: networkio_threads.Message) -> None:
        decoded = _decoded(message)
        if decoded is not None:
            data, raw = decoded
            try:
                if message.wants_reply:
                    message.reply(data, raw=raw)
                else:
                    message.peer.send(data, headers=message.headers, raw=raw)
            except SessionClosed:  # it was aborted meanwhile
                pass
            message.ack()
        _finish(message.peer)

    def end() -> None:
        for notice in node.notifications():
            if isinstance(notice, PeerEnded):
                _finish(notice.peer)

    for work in (end, lambda: node.serve(handle)):
        threading.Thread(target=work, daemon=True).start()
