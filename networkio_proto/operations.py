"""How what may have to wait is written once, and waited for in as many ways as there are drivers.

Theory of operation
-------------------
Receiving, sending into a full outbox, waiting for a receipt: each of these looks at the core, and where it finds
nothing yet, waits and looks again.  Looking is the same everywhere; only the waiting differs.  So each is an
:data:`Operation`, a generator that does the looking and *yields* a :class:`Token` where it must wait.  The token came
from the driver (an event of its loop, a lock), is registered where the core will set it, and is taken back when the
generator goes on or is closed.

A driver runs an operation so: resume it under its lock (or on its loop), wait for the token without the lock, and
resume it again.  What it returns is the result.  When time is up, a TimeoutError is thrown into it, and the operation
decides what that means; when the caller is cancelled, it is closed, and has left nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar

__all__ = ["Operation", "Steps", "Token"]

T = TypeVar("T")


class Token(Protocol):
    """What a driver waits for: set once, by the core, when it is worth looking again."""

    def set(self) -> None:
        """Wake whoever waits; harmless when nobody does, and when it was set before."""


class Core(Protocol):
    """What an operation is run in: a node, as far as its steps need it."""

    def enter(self) -> object:
        """Before a step."""

    def leave(self) -> None:
        """After it."""


#: a generator that yields what to wait for and returns its result
Operation: TypeAlias = Generator[Token, None, T]


class Steps(Generic[T]):
    """One run of an operation, as a driver sees it.

    ::

        with Steps(operation, node) as steps:
            while (token := steps.next()) is not None:
                if not <wait for the token>:
                    steps.time_is_up(timeout)
            return steps.result

    Whatever ends this early must :meth:`close` it, as the ``with`` block does when it is left by an exception.
    """

    __slots__ = ("_node", "_operation", "_resume", "result")

    def __init__(self, operation: Operation[T], node: Core) -> None:
        self._operation = operation
        self._node = node
        self._resume: Callable[[], Token] = operation.__next__
        #: what the operation returned, once :meth:`next` has returned None
        self.result: T

    def next(self) -> Any:
        """Go on inside, to the next token (the driver's own kind) to wait for; None at the end.

        Raises what the operation raises.
        """
        node = self._node
        node.enter()  # as ``with node.inside``; this is the way of every wait
        try:
            token = self._resume()
        except StopIteration as done:
            self.result = done.value
            return None
        finally:
            node.leave()
        self._resume = self._operation.__next__
        return token

    def time_is_up(self, timeout: float | None) -> None:
        """The next step lets the operation know that it has waited for so many seconds in vain."""
        self._resume = partial(self._operation.throw, TimeoutError(f"not within {timeout:g} s"))

    def close(self) -> None:
        """Give the operation up: it leaves nothing behind."""
        self._node.enter()
        try:
            self._operation.close()
        finally:
            self._node.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is not None:
            self.close()
