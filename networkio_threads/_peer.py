"""The core's peers, messages and receipts, for threads.

How they wait, and everything that decides, is in the core (:mod:`networkio_proto.blocking`).  Whatever waits takes
``timeout``, in seconds, and raises TimeoutError when it is over, with a sentence that says what is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from networkio_proto import Session
from networkio_proto.blocking import BlockingIterator, BlockingMessage, BlockingPeer, BlockingReceipt

if TYPE_CHECKING:
    from ._node import Node


class Message(BlockingMessage["Peer", "Receipt"]):
    """A received message.  ``with message:`` acknowledges it on success and releases it on an exception.

    It may be settled from any thread.
    """

    __slots__ = ()


class Receipt(BlockingReceipt["Peer"]):
    """The sender's side of one accepted message."""

    __slots__ = ()


class MessageIterator(BlockingIterator[Message]):
    """``for message in peer``: each message is acknowledged when the next is asked for."""

    __slots__ = ()


class Peer(BlockingPeer["Node", Message, Receipt, MessageIterator]):
    """Another node, and the conversation with it.  Made by ``Node.connect``, ``Node.peer``, or by its arrival.

    Every method may be called from any thread.  What several threads send is sent in the order in which the calls
    returned; what several threads take, each message goes to one of them.
    """

    def __init__(self, node: Node, session: Session) -> None:
        super().__init__(node, session, Message, Receipt, MessageIterator)
