"""The peer at an address: wait for it, say what is being waited for, and notice when waiting is in vain."""

from __future__ import annotations

import socket
import time

from networkio_proto import ConnectionFailure, DialFailed, PeerDisconnected, RetryClass
from networkio_proto.reconnect import retry_class

from ._bridge import Node, Peer
from ._terminal import BEAT, Interrupts, StatusLine

__all__ = ["Link", "hopeless", "meet"]

#: without a connection for so long, and then again and again after this, it is told what is being waited for (seconds)
_WORRIED_AFTER = 2.0
_WORRIED_AGAIN = 30.0


def meet(
    node: Node, address: tuple[str, int], peer_id: str | None, interrupts: Interrupts, status: StatusLine
) -> Peer:
    """Dial, and wait until somebody answered (``peer_id`` or nobody else).

    Raises Interrupted, ConfigurationError, and the ConnectionFailure that waiting does not mend.
    """
    worry = _Worry(status)
    dialled = node.connect(*address, peer_id)
    while (peer := interrupts.join(dialled)) is None:
        worry.about(str(node.dial_error() or "no answer yet"))
    while not peer.connected:
        interrupts.check()
        match node.next_notice(BEAT):
            case PeerDisconnected(error=error) if hopeless(error):
                raise error
        worry.about(peer.why())
    return peer


def hopeless(error: ConnectionFailure) -> bool:
    """Is there nothing to wait for, before the first connection?"""
    unresolved = isinstance(error, DialFailed) and isinstance(error.__cause__, socket.gaierror)
    return unresolved or retry_class(error) in (RetryClass.SLOW, RetryClass.STOP)


class Link:
    """The connection to a peer, looked at now and then."""

    def __init__(self, node: Node, peer: Peer, status: StatusLine) -> None:
        self._node = node
        self._peer = peer
        self._worry = _Worry(status)
        self._reconnects = 0

    def look(self) -> None:
        """Say what is being waited for, if that takes long; raises the ConnectionFailure after which nobody dials."""
        while (notice := self._node.next_notice(0)) is not None:
            match notice:
                case PeerDisconnected(error=error) if retry_class(error) is RetryClass.STOP:
                    raise error
        reconnects, before = self._peer.reconnects, self._reconnects
        self._reconnects = reconnects
        if self._peer.connected or reconnects > before:
            self._worry.over()
        else:
            self._worry.about(self._peer.why())


class _Worry:
    """Tells what is being waited for: not at once, and not all the time."""

    def __init__(self, status: StatusLine) -> None:
        self._status = status
        self._due = time.monotonic() + _WORRIED_AFTER

    def about(self, text: str) -> None:
        """This is being waited for."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _WORRIED_AGAIN
            self._status.say(f"waiting: {text}")

    def over(self) -> None:
        """No more."""
        self._due = time.monotonic() + _WORRIED_AFTER
