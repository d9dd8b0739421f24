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

from collections.abc import Generator
from typing import Protocol, TypeAlias, TypeVar

__all__ = ["Operation", "Token"]

T = TypeVar("T")


class Token(Protocol):
    """What a driver waits for: set once, by the core, when it is worth looking again."""

    def set(self) -> None:
        """Wake whoever waits; harmless when nobody does, and when it was set before."""


#: a generator that yields what to wait for and returns its result
Operation: TypeAlias = Generator[Token, None, T]
