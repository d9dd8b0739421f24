"""Somebody with a key, or with a wrong one, who speaks the protocol by hand."""

from __future__ import annotations

import hashlib
from typing import Any

from networkio_proto import Proof
from tests.proto.helpers_auth import mac_of
from tests.proto.helpers_wire import PREAMBLE, Line, Node, Peer

__all__ = ["Holder", "key"]


def key(name: str) -> bytes:
    """A key that looks like one."""
    return hashlib.sha256(name.encode()).digest()


class Holder(Peer):
    """A peer that proves by ``secret`` what it says; ``key_id`` is what it announces."""

    def __init__(self, peer_id: str, secret: bytes, *, key_id: str | None = "k1", life: int = 1) -> None:
        super().__init__(peer_id, life=life, auth="psk")
        self.secret = secret
        self.key_id = key_id

    def proof(self, node: str, transcript: bytes, *, dialer_mac: bytes | None = None, **facts: Any) -> bytes:
        """The ATTACH frame of a dialer, or (``dialer_mac``: what it answers) of an acceptor."""
        ids = (self.peer_id, node) if dialer_mac is None else (node, self.peer_id)
        role, covered = (b"D", b"") if dialer_mac is None else (b"A", dialer_mac)
        zeroed = self.attach(node, mac=bytes(32), **facts)
        return zeroed[:-32] + mac_of(self.secret, Proof(role, *ids, self.key_id, transcript, b"", covered, zeroed))

    def introduce(self, node: Node, **changes: Any) -> tuple[Line, bytes]:
        """Dial the node, up to its HELLO_ACK; the line, and everything said."""
        line = node.accept(source="somewhere")
        said = PREAMBLE + self.hello(to=node.peer_id, key_id=self.key_id, **changes)
        line.say(said)
        return line, said + line.raw()

    def dial(self, node: Node, **facts: Any) -> Line:
        """Dial the node, up to the proof."""
        line, transcript = self.introduce(node)
        line.say(self.proof(node.peer_id, transcript, **facts))
        return line

    def answer(self, node: Node, **facts: Any) -> Line:
        """Be the one who answers where the node dials, up to the proof."""
        line = node.dial(self.peer_id)
        said, mine = line.raw(), PREAMBLE + self.hello_ack()
        line.say(mine)
        line.say(self.proof(node.peer_id, said + mine, dialer_mac=line.raw()[-32:], **facts))
        return line
