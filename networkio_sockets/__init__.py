"""What both adapters ask the operating system about a socket, which is not for a core that knows none.

It takes part in no decision: :func:`backlog_of` tells how much of what a socket took is still under way, and the core
tells a slow stream from one that is stuck by it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol

__all__ = ["backlog_of"]


class _Socket(Protocol):
    def fileno(self) -> int: ...


def backlog_of(sock: _Socket, held: Callable[[], int] | None = None) -> Callable[[], int] | None:
    """For ``Connection.backlog``: a function that asks the system, and adds what a driver itself still holds back.

    What is under way in the system can stay the same while bytes pass, for whatever leaves makes room for more: so a
    driver that can tell has to say what it ``held``.  Where there is no way to ask the system, that is all; without it,
    None.
    """
    if sys.platform != "linux":
        return held
    import fcntl
    import termios

    def backlog() -> int:
        try:
            under_way = int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except (OSError, ValueError):  # closed meanwhile
            return 0
        return under_way if held is None else under_way + held()

    return backlog
