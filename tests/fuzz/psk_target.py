"""Target: a program of somebody who owns the network between two nodes that share keys, and who knows neither of them.

Theory of operation
-------------------
``m`` and ``a`` are honest nodes with two keys in common; both dial and both answer.  Between them sits the attacker.
It opens byte streams with either, passes on what they say, whole or changed or to another stream than it was meant for,
repeats what it once heard, puts parts of one frame into another, and forges what it likes.  It holds three keys: one
that is nobody's, one of zeros, and the key of ``z``, as whom it may be let in by ``m`` (it is an insider then).

An instruction is four bytes: what to do, with which stream, and two that say how.

What is judged is *agreement*, which each single attack is a violation of.  Whenever a node takes somebody for its
friend, there is one stream of the friend's on which byte for byte the same was said and heard until then, in the other
role, over a channel with the same certificate; and no stream of the friend's is good for two.  Until somebody has
proved who it is, no session changes, and a live connection stays.  A refusal tells the code and nothing more.
"""

from __future__ import annotations

from struct import pack
from typing import Any

import msgpack

from networkio_proto import PSK, CloseCode, ConnectionState, Identity, Proof, Refusal, TLSFacts
from tests.fuzz.reader import Reader
from tests.fuzz.wire_targets import judge_line, rest
from tests.proto import helpers_wire as wire
from tests.proto.helpers_auth import mac_of
from tests.proto.helpers_wire import PREAMBLE, SMALL, Line, Node, Peer, fingerprint, frame, mapping

__all__ = ["OPERATIONS", "psk"]

_NEW, _OLD, _OF_Z = bytes(range(1, 33)), bytes(range(33, 65)), bytes(range(65, 97))

#: with which the attacker signs
_HELD = (bytes(range(97, 129)), bytes(32), _OF_Z)

_ROTATIONS: tuple[dict[str, bytes], ...] = ({"new": _NEW, "old": _OLD}, {"new": _NEW}, {"old": _OLD})

_CHANNELS = (None, TLSFacts(binding=b"1" * 32), TLSFacts(binding=b"2" * 32))

#: a program of any length ends, and does not become slow
_MOST, _STREAMS, _FRAMES = 80, 12, 64

#: a stranger gets no more memory than this (P-SEC-1)
_STRANGER = 8192


def psk(data: bytes) -> None:
    """Play a program, then let time pass, and look at what is left."""
    network = Network(Reader(data))
    for _ in range(_MOST):
        if not network.reader.left:
            break
        network.step()
    network.end()


class Stream:
    """One byte stream of a node, what was said and heard on it, and where the attacker passes it on to."""

    def __init__(self, node: Node, line: Line, channel: TLSFacts | None) -> None:
        self.node = node
        self.line = line
        self.channel = channel
        self.partner = self
        self.said = b""
        self.heard = b""
        #: so much of what it said was passed on
        self.passed = 0
        #: whose proof was good on it
        self.proved = ""
        #: the stream of the other node that was proved by it
        self.proves: Stream | None = None


class Network:
    """The attacker's view."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.m = Node("m", SMALL, authorize=self.welcome)
        self.a = Node("a", SMALL, authorize=self.welcome)
        self.keys = PSK({"a": _ROTATIONS[0], "z": _OF_Z})
        self.m.endpoint.auth = self.keys
        self.a.endpoint.auth = PSK({"m": _ROTATIONS[0]})
        for node, other in ((self.m, "a"), (self.a, "m")):
            node.send(other, b"one", b"two")
        self.forger = Peer("a", auth="psk")
        self.streams: list[Stream] = []
        #: every frame that was ever said, the newest last
        self.frames: list[bytes] = []
        #: what is hearing something now, and whether anybody proved something by it
        self.hearing: Stream | None = None
        self.newly_proved = False
        #: what was found wrong where it could not be raised
        self.wrong: AssertionError | None = None

    def step(self) -> None:
        """One instruction."""
        operation, which, x, y = self.reader.byte(), self.reader.byte(), self.reader.byte(), self.reader.byte()
        self.newly_proved = False
        OPERATIONS[operation % len(OPERATIONS)](self, which, x, y)
        self.judge()

    def pick(self, which: int) -> Stream | None:
        """One of the newest streams."""
        return self.streams[-1 - which % len(self.streams)] if self.streams else None

    # -- streams --------------------------------------------------------------------------------------------------

    def meet(self, which: int, x: int, y: int) -> None:
        """One node dials, the other answers, and what they say is meant for each other."""
        dialer, acceptor = (self.m, self.a) if which & 1 else (self.a, self.m)
        one, two = self.dial(dialer, _CHANNELS[x % 3]), self.accept(acceptor, _CHANNELS[y % 3])
        if one is not None and two is not None:
            one.partner, two.partner = two, one

    def alone(self, which: int, x: int, y: int) -> None:
        """A node dials or answers, and there is only the attacker."""
        node = self.a if which & 2 else self.m
        stream = (self.dial if which & 1 else self.accept)(node, _CHANNELS[x % 3])
        if stream is not None:
            stream.partner = self.pick(y) or stream

    def dial(self, node: Node, channel: TLSFacts | None) -> Stream | None:
        if not node.dials and len(node.endpoint.targets) < 4:
            node.add_target("a" if node is self.m else "m")
        if not node.dials or len(self.streams) >= _STREAMS:
            return None
        target = node.dials.pop(0)
        connection = node.endpoint.connect(node.attempts[target], node.now, tls=channel)
        return self.add(node, node._line(connection), channel)

    def accept(self, node: Node, channel: TLSFacts | None) -> Stream | None:
        return None if len(self.streams) >= _STREAMS else self.add(node, node.accept(tls=channel), channel)

    def add(self, node: Node, line: Line, channel: TLSFacts | None) -> Stream:
        stream = Stream(node, line, channel)
        self.streams.append(stream)
        self.collect()
        return stream

    def turn(self, which: int, x: int, y: int) -> None:
        """From now on what is said on one stream is meant for another."""
        one, two = self.pick(which), self.pick(x)
        if one is not None and two is not None:
            one.partner = two

    def cut(self, which: int, x: int, y: int) -> None:
        stream = self.pick(which)
        if stream is not None and not stream.line.dropped:
            (Line.eof if x & 1 else Line.lose)(stream.line)

    # -- bytes ----------------------------------------------------------------------------------------------------

    def say(self, stream: Stream | None, data: bytes, chunk: int = 1 << 30) -> None:
        """A node hears that; what it says is collected."""
        if stream is None or stream.line.closed is not None or not data:
            return
        node = stream.node
        before, live = fingerprint(node.endpoint), self.live(node)
        stream.heard += data
        self.hearing = stream
        stream.line.say(data, chunk=chunk)
        self.hearing = None
        self.collect()
        if not self.newly_proved and stream.line not in live:
            assert fingerprint(node.endpoint) == before, "a session changed, and nobody has proved anything"
            assert self.live(node) == live, "a live connection went away, and nobody has proved anything"

    def collect(self) -> None:
        """What was said meanwhile, by everybody."""
        for stream in self.streams:
            said = stream.line.raw()
            stream.said += said
            said = said.removeprefix(PREAMBLE)
            while said:
                size = 4 + int.from_bytes(said[:4], "big")
                self.frames.append(said[:size])
                said = said[size:]
        del self.frames[:-_FRAMES]

    def relay(self, which: int, x: int, y: int) -> None:
        """Pass on what was said; ``y``: in pieces."""
        stream = self.pick(which)
        if stream is not None:
            said, stream.passed = stream.said[stream.passed :], len(stream.said)
            self.say(stream.partner, said, 1 + y % 8 if y >= 0xC0 else 1 << 30)

    def relay_all(self, which: int, x: int, y: int) -> None:
        """Pass on everything, so many times."""
        for turn in range(len(self.streams) * (1 + x % 4)):
            self.relay(turn, 0, y)

    def tamper(self, which: int, x: int, y: int) -> None:
        """Pass on what was said, but for one byte; counted from the front, or from the back."""
        stream = self.pick(which)
        if stream is not None and (said := bytearray(stream.said[stream.passed :])):
            stream.passed = len(stream.said)
            place = (x & 0x7F) if x & 0x80 == 0 else -1 - (x & 0x7F)
            said[place % len(said)] ^= y or 1
            self.say(stream.partner, bytes(said))

    def repeat(self, which: int, x: int, y: int) -> None:
        """Say a frame that was once said somewhere, behind a preamble if it would be the first."""
        if self.frames:
            self.utter(which, self.frames[-1 - x % len(self.frames)])

    def graft(self, which: int, x: int, y: int) -> None:
        """Say a frame that was once said, with one entry from another."""
        if not self.frames:
            return
        one, two = self.frames[-1 - (x & 15) % len(self.frames)], self.frames[-1 - (x >> 4) % len(self.frames)]
        if max(one[4], two[4]) <= wire.ATTACH:
            fields, others = msgpack.unpackb(one[6:]), msgpack.unpackb(two[6:])
            key = list(fields)[y % len(fields)]
            fields[key] = others.get(key, y)
            self.utter(which, frame(one[4], mapping(fields)))

    def babble(self, which: int, x: int, y: int) -> None:
        """Say anything."""
        self.say(self.pick(which), (PREAMBLE if y & 1 else b"") + self.reader.take(x % 64))

    def utter(self, which: int, said: bytes) -> None:
        stream = self.pick(which)
        if stream is not None:
            self.say(stream, said if stream.heard else PREAMBLE + said)

    # -- forgeries ------------------------------------------------------------------------------------------------

    def forge_hello(self, which: int, x: int, y: int) -> None:
        """Introduce somebody, in the role that the stream leaves."""
        stream = self.pick(which)
        if stream is None:
            return
        own = stream.node.peer_id
        changes: dict[str, Any] = {"id": ("m" if own == "a" else "a", "z", own, "nobody")[x % 4]}
        if stream.line.connection.dialer:
            self.utter(which, self.forger.hello_ack(**changes))
        else:
            key_id = (None, "new", "old", "gone")[y % 4]
            self.utter(which, self.forger.hello(to=own, key_id=key_id, **changes))

    def forge_attach(self, which: int, x: int, y: int) -> None:
        """State facts, with the best proof that the attacker can make; ``y``: by which key, or none at all."""
        stream = self.pick(which)
        if stream is None:
            return
        own, dialled = stream.node.peer_id, stream.line.connection.dialer
        said, heard = _opening(stream.said, 1), _opening(stream.heard, 1)
        who = stream.line.connection.peer_id or "z"
        forger = Peer(who, life=2 + x % 2)
        mac = (b"?" * 32, None, b"", bytes(31))[y >> 4 & 3]
        facts = frame(wire.ATTACH, mapping(forger.attach_map(own, next=1 + x % 3, mac=mac)))
        if mac == b"?" * 32 and said is not None and heard is not None:
            facts = facts[:-32] + bytes(32)
            last = _opening(stream.said, 2)
            proof = Proof(
                role=b"A" if dialled else b"D",
                dialer_id=own if dialled else who,
                acceptor_id=who if dialled else own,
                key_id=None,
                transcript=said + heard if dialled else heard + said,
                binding=b"" if stream.channel is None else stream.channel.binding,
                dialer_mac=last[-32:] if dialled and last is not None else b"",
                attach=facts,
            )
            facts = facts[:-32] + mac_of(_HELD[y % 3], proof)
        self.utter(which, facts)

    # -- what happens besides -------------------------------------------------------------------------------------

    def wait(self, which: int, x: int, y: int) -> None:
        for node in (self.m, self.a):
            node.advance((0.01, 0.5, 2.0, 5.0)[x % 4])
        self.collect()

    def send(self, which: int, x: int, y: int) -> None:
        if self.m.session("a").outbox.cost < 5000:
            self.m.send("a", b"more")
        self.collect()

    def rotate(self, which: int, x: int, y: int) -> None:
        """``m`` changes its keys, and looks anew at who is there."""
        keys = _ROTATIONS[x % 3]
        self.keys.replace({"a": keys, "z": _OF_Z})
        self.m.endpoint.recheck(self.m.now)
        self.m.pump()
        self.collect()
        for line in self.live(self.m):
            assert line.connection.peer_id != "a" or line.connection.key_id in keys, "its key has gone"

    # -- the oracle -----------------------------------------------------------------------------------------------

    def live(self, node: Node) -> list[Line]:
        return [line for line in node.lines.values() if line.live]

    def welcome(self, identity: Identity) -> Refusal | None:
        """A node takes somebody for proved: is it so?  What is raised here would be a refusal, so it is kept."""
        try:
            self.check(identity)
        except AssertionError as error:
            self.wrong = error
        return None

    def check(self, identity: Identity) -> None:
        stream = self.hearing
        if stream is None:  # looked at again
            return
        self.newly_proved = True
        assert stream.line.connection.peer_id == identity.peer_id
        assert not stream.proved, "two proofs on one stream"
        stream.proved = identity.peer_id
        if stream.node is self.m and identity.peer_id == "z":
            return
        assert identity.peer_id in ("m", "a"), f"{identity.peer_id} is let in"
        friends = [other for other in self.streams if other.proves in (None, stream) and _agree(stream, other)]
        assert friends, f"{identity.peer_id} is let in by {stream.node.peer_id}, and never said that"
        friends[0].proves = stream

    def judge(self) -> None:
        if self.wrong is not None:
            raise self.wrong
        for stream in self.streams:
            line, connection = stream.line, stream.line.connection
            judge_line(line)
            assert stream.proved or not line.live, "live without a proof"
            if not stream.proved:
                assert line.state is not ConnectionState.PARKED
                assert connection._decoder.pending <= _STRANGER, "a stranger costs too much"
            error = connection.error
            if error is not None and error.code is CloseCode.AUTH_FAILED and not error.remote:
                refused = frame(wire.CLOSE, pack(">HQ", CloseCode.AUTH_FAILED, 0), 1)
                assert "authenticates by" in str(error) or stream.said.endswith(refused), "a refusal that says too much"
        for node in (self.m, self.a):
            peers = [line.connection.peer_id for line in self.live(node)]
            assert len(peers) == len(set(peers)), "two live connections with one peer"
            assert set(node.endpoint.sessions) <= {"m", "a", "z"}, "a session of somebody unproved"

    def end(self) -> None:
        """Nothing stays that has not proved anything, and nobody waits for ever."""
        for node in (self.m, self.a):
            node.advance(10.0)
            for line in node.lines.values():
                assert line.closed is not None or line.live or line.parked, "it stays without being live"
            assert node.endpoint.handshakes == sum(line.parked for line in node.lines.values())
        self.collect()
        self.judge()
        for node in (self.m, self.a):
            rest(node)


def _opening(stream: bytes, count: int) -> bytes | None:
    """The preamble and so many frames, if they are all there."""
    size = len(PREAMBLE)
    for _ in range(count):
        if len(stream) < size + 4:
            return None
        size += 4 + int.from_bytes(stream[size : size + 4], "big")
    return stream[:size] if len(stream) >= size else None


def _agree(stream: Stream, other: Stream) -> bool:
    """Was the same said and heard at both ends, as far as a proof on ``stream`` goes?"""
    if other.node is stream.node or other.line.connection.dialer is stream.line.connection.dialer:
        return False
    heard, said = _opening(stream.heard, 2), _opening(stream.said, 2 if stream.line.connection.dialer else 1)
    if heard is None or said is None or other.channel != stream.channel:
        return False
    return other.said.startswith(heard) and other.heard.startswith(said)


OPERATIONS = (
    Network.meet, Network.relay, Network.relay_all, Network.tamper, Network.repeat, Network.graft, Network.forge_hello,
    Network.forge_attach, Network.babble, Network.alone, Network.turn, Network.cut, Network.wait, Network.send,
    Network.rotate, Network.relay,
)  # fmt: skip
