"""Where the fragments of the documentation run.  This is the one place that says what they may take for granted.

``node``
    the node "client-123", open
``peer``
    its peer "server-001", connected
``message``
    a message from there that is held, and waits for a reply
``receipt``
    of a message that was sent there
``server``
    the other node, "server-001", in the same process; it listens on port 8080, acknowledges everything, answers
    requests with their own data, and has sent "Hello", ``{"number": 1}`` and ``{"number": 2}``
``save``, ``show``, ``work``
    functions of one argument that do nothing

A fragment that makes a ``Node`` of its own gets only ``server``.  All names of the adapter are there, and ``anyio`` or
``threading``.  When nothing moves any more ``server-001`` ends the conversation, and then ``node`` is closed, so that
loops come to their end; a fragment that is not done by then has failed.

A fragment with ``await`` runs on networkio_asyncio.  Without the words ``await`` and ``async`` it then has to do the
same on networkio_threads, unless it speaks of ``anyio`` or ``asyncio``.
"""

from __future__ import annotations

import ast
import re
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from types import CodeType
from typing import Any

import anyio

import networkio_asyncio
import networkio_threads

__all__ = ["run_asyncio", "run_threads", "without_await"]

#: nothing moved for so long: its partner ends, next its node closes (seconds)
PATIENCE = 0.1
LIMIT = 10.0

GREETINGS = ("Hello", {"number": 1}, {"number": 2})


def without_await(code: str) -> str | None:
    """The same fragment for networkio_threads; None if there is none."""
    if re.search(r"\b(anyio|asyncio)\.", code) or not re.search(r"\b(await|async)\b", code):
        return None
    return re.sub(r"\b(await|async) +", "", code).replace("networkio_asyncio", "networkio_threads")


def _compiled(code: str, name: str, port: int) -> CodeType:
    code = code.replace("8080", str(port))
    compiled: CodeType = compile(code, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return compiled


def _names(adapter: Any, **more: Any) -> dict[str, Any]:
    def nothing(_: Any) -> None:
        pass

    names = {name: getattr(adapter, name) for name in adapter.__all__}
    return {**names, "save": nothing, "show": nothing, "work": nothing, **more}


def _moved(*nodes: Any) -> list[object]:
    """What changes as long as messages move."""
    return [(node.ledger, [(peer.unread, peer.connected) for peer in node.peers]) for node in nodes if node is not None]


async def run_asyncio(code: str, name: str) -> None:
    """Run a fragment on networkio_asyncio; raises what it raises, and TimeoutError."""

    async def answer(message: networkio_asyncio.Message) -> None:
        if message.wants_reply:
            await message.reply(message.data)

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(_hasty(networkio_asyncio, "server-001"))
        port = (await server.listen("127.0.0.1", 0)).port
        names = _names(networkio_asyncio, server=server, anyio=anyio)
        other = server.peer("client-123")
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(server.serve, answer)
        node = None
        if "Node(" not in code:
            node = await stack.enter_async_context(_hasty(networkio_asyncio, "client-123"))
            peer = await node.connect("127.0.0.1", port, "server-001")
            tasks.start_soon(_ask, other)
            names |= {"node": node, "peer": peer, "message": await peer.receive(), "receipt": await peer.send("first")}
        for greeting in GREETINGS:
            await other.send(greeting)

        async def quiet() -> None:
            before: list[object] = []
            while (now := _moved(server, node)) != before:
                before = now
                await anyio.sleep(PATIENCE)

        async def hurry() -> None:
            await quiet()
            other.end()
            await quiet()
            if node is not None:
                await node.aclose(0)

        tasks.start_soon(hurry)
        with anyio.fail_after(LIMIT):
            coroutine = eval(_compiled(code, name, port), names)
            if coroutine is not None:
                await coroutine
        tasks.cancel_scope.cancel()


async def _ask(other: Any) -> None:
    try:
        await other.request("what time is it?")
    except networkio_asyncio.NetworkioError:
        pass  # the fragment did not reply


def run_threads(code: str, name: str) -> None:
    """Run a fragment on networkio_threads; raises what it raises, and TimeoutError."""

    def answer(message: networkio_threads.Message) -> None:
        if message.wants_reply:
            message.reply(message.data)

    with ExitStack() as stack:
        server = stack.enter_context(_hasty(networkio_threads, "server-001"))
        port = server.listen("127.0.0.1", 0).port
        names = _names(networkio_threads, server=server, threading=threading)
        other = server.peer("client-123")
        _thread(lambda: server.serve(answer))
        node = None
        if "Node(" not in code:
            node = stack.enter_context(_hasty(networkio_threads, "client-123"))
            peer = node.connect("127.0.0.1", port, "server-001")
            _thread(lambda: _ask_blocking(other))
            names |= {"node": node, "peer": peer, "message": peer.receive(LIMIT), "receipt": peer.send("first")}
        for greeting in GREETINGS:
            other.send(greeting)
        raised: list[BaseException] = []

        def run() -> None:
            try:
                exec(_compiled(code, name, port), names)
            except BaseException as error:
                raised.append(error)

        thread = _thread(run)

        def quiet() -> None:
            before: list[object] = []
            while thread.is_alive() and (now := _moved(server, node)) != before:
                before = now
                thread.join(PATIENCE)

        quiet()
        if thread.is_alive():
            other.end()
            quiet()
        if thread.is_alive() and node is not None:
            node.close(0)
        thread.join(LIMIT)
        if thread.is_alive():
            raise TimeoutError(f"{name} does not end")
        if raised:
            raise raised[0]


def _ask_blocking(other: Any) -> None:
    try:
        other.request("what time is it?")
    except networkio_threads.NetworkioError:
        pass  # the fragment did not reply


def _thread(target: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def _hasty(adapter: Any, peer_id: str) -> Any:
    return adapter.Node(peer_id, config=adapter.Config(drain_timeout=0.05, linger=0.1, ack_delay=0.005))
