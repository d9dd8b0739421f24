"""One process of a benchmark: plays one end of a contender, told what to do by lines of JSON on its standard input.

    python -m benchmarks.worker PLAN

The first line in, ``{"do": "begin", "address": ...}``, is answered with the address of an end that listens, or when
one has connected; before it comes, libraries are loaded, by both of a pair at the same time.  After that each line in,
``{"do": METHOD, ...arguments}``, is answered by one line out when the method has returned: ``{"result": ...,
"begin": T, "end": T}``, times on the system's monotonic clock, which all processes share.
``{"error": TEXT}`` is the last line of one that failed.  The end of the input ends the process.
"""

from __future__ import annotations

import gc
import inspect
import json
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from importlib import import_module
from time import monotonic
from typing import Any

import anyio
import anyio.to_thread

from benchmarks.ends import End, Plan
from benchmarks.peers import NETWORKIO, module_of
from benchmarks.processes import end_with_parent


def say(**words: object) -> None:
    """To the runner."""
    print(json.dumps(words), flush=True)


async def finished(call: Callable[[], Any]) -> Any:
    """What it returns, coroutine or not."""
    result = call()
    return await result if inspect.isawaitable(result) else result


async def both(end: End, count: int) -> None:
    """Send and receive at the same time: two tasks, or two threads where the library blocks."""
    client = end.plan.role == "client"
    there, back = (end.send, end.receive_back) if client else (end.send_back, end.receive)
    if inspect.iscoroutinefunction(end.send):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(there, count)
            await back(count)
        return
    thread = threading.Thread(target=there, args=(count,), daemon=True)
    thread.start()
    back(count)
    thread.join()


async def obey(end: End, line: str) -> None:
    """One command."""
    words = json.loads(line)
    what = words.pop("do")
    begin = monotonic()
    if what == "both":
        await both(end, words["count"])
        result = None
    else:
        result = await finished(partial(getattr(end, what), **words))
    say(result=result, begin=begin, end=monotonic())


async def play(end: End, address: Any) -> None:
    """From the second line to the end of the input."""
    begin = monotonic()
    result = await finished(lambda: end.listen(address) if end.plan.role == "server" else end.connect(address))
    say(result=result, begin=begin, end=monotonic())
    while line := await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        await obey(end, line)
    os._exit(0)  # nobody needs goodbyes, and some libraries would wait for them


def main() -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the runner, which ends its workers
    logging.basicConfig(level=logging.ERROR)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    plan = Plan(**json.loads(sys.argv[1]))
    if plan.role == "client" and plan.connections > 1:
        gc.disable()  # it plays many machines: the collector would walk over all of them at the expense of each
    options = {"use_uvloop": True} if plan.adapter == "uvloop" else {}
    crowd = plan.contender == NETWORKIO and plan.role == "client" and bool(plan.settings.get("crowd"))
    backend = "trio" if plan.adapter == "trio" and plan.contender == NETWORKIO and not crowd else "asyncio"
    try:
        many = plan.role == "client" and plan.connections > 1  # see peers/networkio_threads.py
        adapter = "asyncio" if many and plan.adapter == "threads" else plan.adapter
        module = "benchmarks.peers.networkio_crowd" if crowd else module_of(plan.contender, adapter)
        end: End = import_module(module).End(plan)
        import_module(f"anyio._backends._{backend}")
        if not (line := sys.stdin.readline()):
            return
        anyio.run(play, end, json.loads(line)["address"], backend=backend, backend_options=options)
    except BaseException as error:
        cause: BaseException = error
        while isinstance(cause, BaseExceptionGroup):  # a task group's wrapping
            cause = cause.exceptions[0]
        say(error=f"{type(cause).__name__}: {cause}")
        raise


if __name__ == "__main__":
    main()
