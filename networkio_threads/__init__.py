"""networkio over blocking calls: reliable conversations between named peers, for programs with threads or without.

::

    with Node("server-001") as node:
        node.listen("127.0.0.1", 8080)
        for notice in node.notifications():
            match notice:
                case MessagesReady(peer=peer):
                    while (data := peer.read_nowait(default=None)) is not None:
                        print(peer.id, data)
"""

import networkio_proto
from networkio_proto import *  # noqa: F403  (what users of the core's types need)
from networkio_proto.errors import *  # noqa: F403  (once more, for mypy)
from networkio_proto.events import *  # noqa: F403

from ._node import Handler, Listener, Node
from ._peer import Message, MessageIterator, Peer, Receipt

__all__ = ["Handler", "Listener", "Message", "MessageIterator", "Node", "Peer", "Receipt"]
__all__ += networkio_proto.__all__
