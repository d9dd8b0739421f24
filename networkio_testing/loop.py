"""An asyncio event loop whose clock is virtual: an hour passes in milliseconds, and every run is the same.

Theory of operation
-------------------
A :class:`VirtualLoop` is asyncio's own loop over a selector that never waits.  When nothing is ready to run, the loop
asks its selector to wait for the next timer; this one lets that much time pass on the loop's clock and returns at
once.  Nothing but its own waiting moves a program's clock, so its timeouts are exact, and it never fails because a
machine was slow.

Runs repeat, but for one thing that is left to the addresses of objects: task groups keep their tasks in sets.  So tasks
are numbered here, and of those that are cancelled at once the one with the lower number gets to know it first.

What comes from outside of the loop has real time, and none passes here: a helper thread or a socket would be waited for
in vain, or time would rush past it.  So these are :class:`NotVirtual`, raised where they are begun, and once more out
of the loop should somebody catch it there: every ``threading.Thread`` that the program starts (and with it executors,
``to_thread``, timers and nodes of networkio_threads), and the loop's own executor, sockets, pipes, processes and
look-ups of host names.  ``Thread.start`` is replaced for that while a virtual loop runs.

What the loop does not see it cannot refuse.  Work for a thread that ran before (an executor whose threads are idle) is
waited for in vain.  What blocks in place, such as ``time.sleep``, a socket used without the loop or ``subprocess.run``,
takes real time, and none on the clock.  Threads that other threads start are their own business.

So a run ends in one of these ways: the program is done; it waits for what can never come, for no timer runs
(:class:`~networkio_testing.node.Stuck`); or it waits for longer than ``limit``.

    async def main() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 4600.0
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from operator import attrgetter, itemgetter
from pathlib import Path
from types import CodeType
from typing import Any, NoReturn, TypeVar

from networkio_proto import UsageError

from .node import Stuck

__all__ = ["NotVirtual", "VirtualLoop", "run_virtual"]

T = TypeVar("T")

#: when time begins (seconds), as in a ``World``
_BEGIN = 1000.0

#: a program that waits in vain while nodes keep their connections, or handlers fail again and again, has timers for
#: ever: it is given up after so many virtual seconds (which take some real ones) unless it asks for more
LIMIT = 14_400.0

#: what a program that is given up may take for its cleaning up (virtual seconds)
_GRACE = 600.0

#: so many of the waiting tasks are named
_NAMED = 20

#: where nobody looks for a mistake of his own
_LIBRARIES = {"asyncio", "anyio", "networkio_proto", "networkio_asyncio", "networkio_testing"}


class NotVirtual(UsageError, RuntimeError):
    """Something was begun that takes real time: a helper thread, a look-up of a host's name, a socket, a process."""


class _Threads:
    """Refuses to start threads in the middle of programs whose time is virtual, while any of them runs (``with``)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._programs = 0
        #: what ``Thread.start`` was before
        self._start = threading.Thread.start

    def __enter__(self) -> None:
        with self._lock:
            self._programs += 1
            if self._programs == 1:
                before = self._start = threading.Thread.start

                def start(thread: threading.Thread) -> None:
                    loop = _running_loop()
                    if isinstance(loop, VirtualLoop):
                        loop.refuse("helper threads")
                    before(thread)

                self._ours = start
                threading.Thread.start = start  # type: ignore[method-assign,assignment]

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._programs -= 1
            if not self._programs and threading.Thread.start is self._ours:  # else somebody has replaced it since
                threading.Thread.start = self._start  # type: ignore[method-assign]


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """The one that called whoever calls this, if one did."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


_THREADS = _Threads()


class _Selector(selectors.SelectSelector):
    """Never waits.  Only the loop's own wake-up pipe may be watched."""

    loop: VirtualLoop | None = None

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self.get_map() and self.loop is not None:
            self.loop.refuse("sockets and pipes")
        return super().register(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if self.loop is not None and not ready:
            self.loop.wait(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop for ``asyncio.Runner(loop_factory=VirtualLoop)``, and for everything else that takes a loop.

    ``limit``: after so many virtual seconds the program is given up, by raising Stuck out of the loop.
    """

    def __init__(self, *, limit: float = LIMIT) -> None:
        self._ready: deque[asyncio.Handle]  # the base's
        self._now = _BEGIN
        self._until = _BEGIN + limit
        self._limit = limit
        #: something took real time
        self.misuse: NotVirtual | None = None
        self._told = False
        self._numbers = 0
        #: which task is being cancelled, and what is to run because some were: none comes behind anything else's turn
        self.cancelling: int | None = None
        self._cancelled: list[tuple[int, asyncio.Handle]] = []
        selector = _Selector()
        super().__init__(selector)
        selector.loop = self
        self.set_task_factory(_numbered)

    def time(self) -> float:
        """The virtual time (seconds); it begins at 1000."""
        return self._now

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        """As always; those of tasks that are cancelled in one go are put in the order of the tasks."""
        if self.cancelling is None:
            if self._cancelled:
                self._take_turns()
            return super().call_soon(callback, *args, context=context)
        handle = super().call_soon(callback, *args, context=context)
        self._cancelled.append((self.cancelling, self._ready.pop()))
        return handle

    def _take_turns(self) -> None:
        self._cancelled.sort(key=itemgetter(0))
        self._ready.extend(handle for _, handle in self._cancelled)
        self._cancelled.clear()

    def number(self) -> int:
        """The next one."""
        self._numbers += 1
        return self._numbers

    def run_forever(self) -> None:
        """As always; meanwhile no thread is started in this one."""
        with _THREADS:
            super().run_forever()

    def wait(self, timeout: float | None) -> None:
        """Nothing is ready to run for so long (None: for ever): let that time pass.  Raises Stuck, NotVirtual."""
        if self._cancelled:
            self._take_turns()
            return
        if timeout == 0:
            return
        if self.misuse is not None and not self._told:
            self._told = True
            raise self.misuse
        if timeout is None:
            raise Stuck(f"nothing can happen any more: no timer runs, and nothing is under way.{self._waiting()}")
        if self._now + timeout > self._until:
            self._now = self._until
            self._until += _GRACE
            raise Stuck(f"it takes longer than {self._limit:g} virtual seconds.{self._waiting()}")
        self._now += timeout

    def _waiting(self) -> str:
        """What the program's tasks wait for."""
        tasks = sorted((t for t in asyncio.all_tasks(self) if isinstance(t, _Task)), key=attrgetter("number"))
        places = [f"\n  {task.get_name()} waits in {place}" for task in tasks if (place := _place(task.get_coro()))]
        return "".join(places[:_NAMED]) + (f"\n  and {len(places) - _NAMED} more" if len(places) > _NAMED else "")

    # -- what takes real time ---------------------------------------------------------------------------------------

    def refuse(self, what: str) -> NoReturn:
        """Somebody began something that takes real time."""
        self.misuse = NotVirtual(
            f"{what} take real time, and here it is virtual: let the test replace what needs them, "
            f"and connect nodes by a VirtualNetwork"
        )
        raise self.misuse

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        """Raises NotVirtual."""
        self.refuse("helper threads")

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> NoReturn:
        """Raises NotVirtual."""
        self.refuse("look-ups of host names")

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> NoReturn:
        """Raises NotVirtual."""
        self.refuse("look-ups of host names")

    async def subprocess_exec(self, *args: Any, **options: Any) -> NoReturn:
        """Raises NotVirtual."""
        self.refuse("processes")

    async def subprocess_shell(self, *args: Any, **options: Any) -> NoReturn:
        """Raises NotVirtual."""
        self.refuse("processes")


class _Task(asyncio.Task[Any]):
    """A task with a number."""

    def __init__(self, coro: Any, *, loop: VirtualLoop, **options: Any) -> None:
        self.loop = loop
        self.number = loop.number()
        super().__init__(coro, loop=loop, **options)

    def cancel(self, msg: Any = None) -> bool:
        before, self.loop.cancelling = self.loop.cancelling, self.number
        try:
            return super().cancel(msg)
        finally:
            self.loop.cancelling = before


def _numbered(loop: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
    return _Task(coro, loop=loop, **options)


def _place(waiting: Any) -> str:
    """The innermost line at which a coroutine waits that is not a library's ("" if all are)."""
    place = ""
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is None:
            break
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _LIBRARIES:
            code: CodeType = frame.f_code
            place = f"{code.co_qualname}, {Path(code.co_filename).name} line {frame.f_lineno}"
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
    return place


def run_virtual(main: Callable[..., Coroutine[Any, Any, T]], *args: Any, limit: float = LIMIT) -> T:
    """Run ``main(*args)`` in virtual time; returns what it returns.

    Raises what it raises; Stuck if it can never end, or takes longer than ``limit`` virtual seconds; NotVirtual.
    """
    with asyncio.Runner(loop_factory=partial(VirtualLoop, limit=limit)) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        try:
            return runner.run(main(*args))
        finally:
            if loop.misuse is not None:  # whatever became of it since
                raise loop.misuse
