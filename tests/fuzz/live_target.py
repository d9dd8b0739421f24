"""Target: a program of both sides of a session, the node that is tested and a peer that may say anything.

Theory of operation
-------------------
Each operation is one byte that chooses it and a few that say how.  Operations of the node are what applications do;
those of the peer are frames, made so that they mostly fit what came before (the next sequence, a position that the node
has reached) and sometimes do not.  A connection that was closed is no end: the next operation may make another, with
the facts of the same process of the peer or of another one.

What is judged, all the time: sends raise what they are documented to raise; a message is handed over once for each time
that it was released, and never before one that came earlier; a message has one outcome, for ever; what is kept is
within the bounds.  At the end everything is given back.
"""

from __future__ import annotations

from collections.abc import Callable

from networkio_proto import (
    COST_PER_MESSAGE,
    Delivery,
    MessageTooLarge,
    OutboxFull,
    Outcome,
    SessionClosed,
    TargetState,
)
from networkio_proto.handshake import MAX_ENDED
from networkio_proto.inbox import Inbox
from tests.fuzz.reader import Reader
from tests.fuzz.wire_targets import judge_line, rest
from tests.proto import helpers_wire as wire
from tests.proto.helpers_wire import SMALL, Line, Node, Peer

__all__ = ["live"]

_FRAME, _MESSAGE = SMALL.limits.frame, SMALL.limits.message
_SIZES = (0, 1, 20, 2048, 2049, _FRAME - 11, _FRAME - 10, _FRAME - 9, _MESSAGE - 1, _MESSAGE, _MESSAGE + 1, 2)
_PAYLOAD = bytes(range(256)) * (_MESSAGE // 256 + 2)
_ABOUT = (0, 1, -1, 2, -2, 2**62, 2**63, -3)

#: operations beyond so many are not played: a program of any length ends
_MOST = 150


def live(data: bytes) -> None:
    """Play a program, then let everything end, and look at what is left."""
    play = Play(Reader(data))
    for _ in range(_MOST):
        if not play.reader.left:
            break
        play.step()
    play.end()


class Play:
    """The node, its peer, and what was seen."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.node = Node(config=SMALL)
        self.peer = Peer()
        self.session = self.node.session("a")
        self.line: Line | None = None
        #: the next sequence of the peer's outbox
        self.next = 1
        self.accepted: list[int] = []
        self.outcomes: dict[int, Outcome] = {}
        self.held: list[Delivery] = []
        #: (outbox, sequence) that were handed over and not released since
        self.handed: set[tuple[bytes, int]] = set()
        self.last: dict[int, tuple[Inbox, int]] = {}
        self.connect()

    def step(self) -> None:
        """One operation, and a look at everything."""
        operation = self.reader.byte()
        by_peer = operation & 0x80 == 0
        moves = _PEER if by_peer else _NODE
        moves[operation % len(moves)](self)
        self.node.pump()
        self.judge()

    def about(self, value: int) -> int:
        """That number, mostly; or one that is a little or a lot beside it."""
        choice = self.reader.byte()
        return min(max(0, value + (_ABOUT[choice % 8] if choice >= 0xC0 else 0)), 2**64 - 1)

    # -- the peer -------------------------------------------------------------------------------------------------

    def say(self, *frames: bytes) -> None:
        """It says that, if there is a connection."""
        if self.line is not None and self.line.closed is None:
            chunk = self.reader.byte()
            self.line.say(*frames, chunk=1 << 30 if chunk < 0xC0 else 1 + chunk % 8)

    def peer_data(self) -> None:
        sequence, flags = self.about(self.next), self.reader.byte()
        flags = flags & 0x4C if flags < 0xE0 else flags
        size = _SIZES[self.reader.byte() % len(_SIZES)]
        headers = ({".reply": bytes(16)}, {"k": 1}, {"id": bytes(24)}, {})[flags >> 2 & 3] if flags & 0x40 else None
        self.say(wire.data(sequence, _PAYLOAD[: min(size, _FRAME - 100)], flags, headers=headers))
        self.follow()

    def peer_fragments(self) -> None:
        sequence, count = self.about(self.next), 2 + self.reader.byte() % 4
        size = 1 + self.reader.byte() * 20
        total = self.about(size * count)
        frames = [wire.data(sequence, _PAYLOAD[:size], wire.RAW, total=total % 2**32)]
        frames += [wire.data(sequence, _PAYLOAD[:size], wire.CONTINUED | wire.MORE)] * (count - 2)
        frames += [wire.data(sequence, _PAYLOAD[:size], wire.CONTINUED)]
        drop = self.reader.byte()
        if drop >= 0xC0:
            del frames[drop % len(frames)]
        self.say(*frames)
        self.follow()

    def peer_ack(self) -> None:
        outbox = self.session.outbox
        received = self.about(outbox.received + self.reader.byte() % (outbox.transmitted - outbox.received + 1 or 1))
        read = self.about(min(received, outbox.read + self.reader.byte() % 4))
        credit = self.about(outbox.used + self.reader.number() % 40_000)
        self.say(wire.ack(received % 2**64, read % 2**64, credit, self.about(1)))

    def peer_ack_all(self) -> None:
        sent = max(self.session.outbox.transmitted, self.session.outbox.received)
        self.say(wire.ack(sent, sent, self.session.outbox.used + 40_000, 1))

    def peer_skip(self) -> None:
        first = self.about(self.next)
        self.say(wire.skip(first, self.about(first + self.reader.byte() % 4), self.reader.byte() % 8))
        self.follow()

    def peer_reject(self) -> None:
        outbox = self.session.outbox
        name = outbox.outbox_id if self.reader.byte() < 0xE0 else bytes(16)
        sequence = self.about(outbox.read + 1 + self.reader.byte() % 4)
        self.say(wire.reject(name, sequence % 2**64, self.reader.byte(), self.reader.take(3)))

    def peer_fin(self) -> None:
        self.say(wire.fin(self.about(self.next)))
        self.follow()

    def peer_ping(self) -> None:
        self.say((wire.ping, wire.pong)[self.reader.byte() % 2](self.about(0)))

    def peer_close(self) -> None:
        self.say(wire.close(self.reader.byte() % 20, self.reader.take(4), flags=self.reader.byte() % 4))

    def peer_anything(self) -> None:
        kind, flags = self.reader.byte(), self.reader.byte()
        self.say(wire.frame(kind, self.reader.take(self.reader.byte()), flags))
        self.follow()

    def peer_garbage(self) -> None:
        self.say(self.reader.take(self.reader.byte()))

    def peer_leaves(self) -> None:
        if self.line is not None and self.line.closed is None:
            if self.reader.byte() % 2:
                self.line.eof()
            else:
                self.line.lose()

    def connect(self) -> None:
        """It dials, or answers a dial, with the facts of some process of it."""
        reader = self.reader
        life = 1 + reader.byte() % 4
        if self.peer.incarnation != bytes([life]) * 16:
            self.peer, self.next = Peer(life=life), 1
            self.peer.dials = 1000 * self.node.session("a").connections
        outbox = self.session.outbox
        choice = reader.byte()
        inbox = None
        if choice & 3:
            name = outbox.outbox_id if choice & 3 < 3 else bytes(16)
            run = outbox.run if choice & 4 == 0 else bytes(16)
            received = self.about(max(outbox.received, outbox.transmitted - choice // 64))
            inbox = {"outbox": name, "run": run, "received": received, "read": self.about(min(received, outbox.read)),
                     "first": self.about(1) or 1}  # fmt: skip
        ended: list[dict[str, object]] = []
        if choice & 8 and reader.byte() >= 0x80:
            over = {"outbox": outbox.outbox_id, "run": outbox.run, "received": outbox.received, "read": outbox.read,
                    "first": 1, "why": 1 + reader.byte() % 4}  # fmt: skip
            ended = [over] * (1 + (MAX_ENDED if choice & 16 else 0))
        box = self.session.inbox
        if box is not None and box.outbox_id == self.peer.outbox and choice & 32:
            self.next = self.about(box.received + 1)
        first = self.about(max(1, self.next - reader.byte() % 3)) or 1
        facts = {"first": first, "next": self.about(max(first, self.next)), "inbox": inbox, "ended": ended,
                 "credit": reader.byte() * 200}  # fmt: skip
        if choice & 64 and self.node.dials:
            self.line = self.node.answer(self.node.dials[0])
            self.line.say(wire.PREAMBLE, self.peer.hello_ack(), self.peer.attach("m", seen=self.about(0), **facts))
        else:
            self.line = self.node.accept()
            seen = self.about(self.session.arbitration.generation)
            self.line.say(wire.PREAMBLE, self.peer.hello(), self.peer.attach("m", seen=seen, **facts))
        self.follow()

    def follow(self) -> None:
        """The next sequence is the one after what the node has."""
        box = self.session.inbox
        if box is not None and box.outbox_id == self.peer.outbox:
            self.next = min(box.received + 1, 2**63)

    # -- the node -------------------------------------------------------------------------------------------------

    def send(self) -> None:
        size, how = _SIZES[self.reader.byte() % len(_SIZES)], self.reader.byte()
        try:
            sequence = self.session.send(
                _PAYLOAD[:size],
                self.node.now,
                raw=bool(how & 1),
                ttl=(None, 0.01, 3.0, None)[how >> 1 & 3],
                headers={"k": size} if how & 8 else None,
                ack_now=bool(how & 16),
            )
        except (OutboxFull, SessionClosed, MessageTooLarge):
            return
        assert not self.accepted or sequence > self.accepted[-1]
        self.accepted.append(sequence)

    def cancel(self) -> None:
        if self.accepted:
            sequence = self.accepted[-1 - self.reader.byte() % len(self.accepted)]
            if self.session.cancel(sequence, self.node.now):
                assert self.session.outcome(sequence) is Outcome.CANCELLED

    def take(self) -> None:
        self.hand_over(self.session.take(1 + self.reader.byte() % 4), held=True)

    def read(self) -> None:
        self.hand_over(self.session.take_settled(1 + self.reader.byte(), self.node.now), held=False)

    def hand_over(self, deliveries: list[Delivery], *, held: bool) -> None:
        for delivery in deliveries:
            inbox, sequence, payload, *_ = delivery
            name = inbox.outbox_id, sequence
            assert name not in self.handed, "handed over twice"
            details = delivery[4]
            if details is None or details.attempt == 1:
                assert self.last.get(id(inbox), (inbox, 0))[1] < sequence, "out of order"
                self.last[id(inbox)] = (inbox, sequence)
            assert len(payload) <= _MESSAGE + 64
            self.handed.add(name)
            if held:
                self.held.append(delivery)

    def settle(self) -> None:
        if self.held:
            delivery = self.held.pop(self.reader.byte() % len(self.held))
            how = self.reader.byte() % 4
            if how == 3:
                self.session.release(delivery, self.node.now)
                self.handed.discard((delivery[0].outbox_id, delivery[1]))
            else:
                self.session.settle(delivery, self.node.now, reject=(7, "no") if how == 2 else None)

    def finish(self) -> None:
        self.session.end(self.node.now)

    def abort(self) -> None:
        self.session.abort(self.node.now)

    def disconnect(self) -> None:
        self.session.disconnect(self.node.now)

    def drain(self) -> None:
        self.session.drain(self.node.now)
        self.node.pump()
        self.session.undrain()

    def measure(self) -> None:
        self.session.measure(self.node.now)

    def advance(self) -> None:
        self.node.advance((0.001, 0.03, 1.0, 20.0)[self.reader.byte() % 4])

    def jump(self) -> None:
        self.node.jump(6.0)

    def dial(self) -> None:
        for target in list(self.node.endpoint.targets):
            if target.state is TargetState.STOPPED:
                self.node.endpoint.remove_target(target)
        if not self.node.endpoint.targets:
            self.node.endpoint.add_target("there", self.node.now, to="a")

    def stick(self) -> None:
        """The transport takes nothing for a while."""
        if self.line is not None and self.line.closed is None:
            self.line.stuck = not self.line.stuck
            self.line.writable()

    # -- the oracle -----------------------------------------------------------------------------------------------

    def judge(self) -> None:
        session, endpoint = self.session, self.node.endpoint
        for line in self.node.lines.values():
            judge_line(line)
            if line.closed is None:
                assert line.connection._decoder.pending < _FRAME + 4 or line.parked
        assert sum(line.live for line in self.node.lines.values()) <= 1, "two live connections"
        assert session.inboxes.unsettled <= 5 * (SMALL.window_max + _MESSAGE + 128)
        assert session.outbox.cost <= SMALL.outbox_limit + _MESSAGE + COST_PER_MESSAGE
        assert endpoint.outbox_cost == session.outbox.cost
        assert endpoint.inbox_reserved == session.window.reserved <= SMALL.inbox_budget
        assert session.outbox.read <= session.outbox.received or session.outbox.cost == 0 or not session.connected
        box = session.inbox
        assert box is None or box.read <= box.received
        for sequence in self.accepted[-20:]:
            self.outcome(sequence)
        for closed in [line for line in self.node.lines.values() if line.dropped and line is not self.line]:
            del self.node.lines[closed.connection]

    def outcome(self, sequence: int) -> Outcome | None:
        """It has one outcome, or none yet."""
        now = self.session.outcome(sequence)
        before = self.outcomes.get(sequence)
        assert before is None or now is before, f"{sequence} ended as {before}, and then as {now}"
        if now is not None:
            self.outcomes[sequence] = now
        return now

    def end(self) -> None:
        """The peer goes, the application gives up and reads the rest: nothing may be left of it all."""
        session, node = self.session, self.node
        session.abort(node.now)
        node.pump()
        if self.line is not None:
            self.line.stuck = False
        self.judge()
        for line in node.lines.values():
            assert line.closed is not None or line.connection.session is not session
        outcomes = [self.outcome(sequence) for sequence in self.accepted]
        assert None not in outcomes, "a message without an outcome"
        ledger = session.ledger
        assert ledger.accepted == len(self.accepted) == ledger.read + ledger.failed
        assert outcomes.count(Outcome.READ) == ledger.read
        while self.held:
            session.settle(self.held.pop(), node.now)
        while rest_of := session.take_settled(100, node.now):
            self.hand_over(rest_of, held=False)
        node.pump()
        assert session.unsettled == sum(
            reject.cost for box in session.inboxes for reject in box.rejects.values()
        ) == 0  # fmt: skip
        assert node.endpoint.outbox_cost == 0
        assert node.endpoint.inbox_reserved == 0, "a part of the budget is lost"
        rest(node)


_PEER: tuple[Callable[[Play], None], ...] = (
    Play.peer_data, Play.peer_data, Play.peer_data, Play.peer_fragments, Play.peer_ack, Play.peer_ack_all,
    Play.peer_skip, Play.peer_reject, Play.peer_fin, Play.peer_ping, Play.peer_close, Play.peer_anything,
    Play.peer_garbage, Play.peer_leaves, Play.connect, Play.connect,
)  # fmt: skip
_NODE: tuple[Callable[[Play], None], ...] = (
    Play.send, Play.send, Play.send, Play.cancel, Play.take, Play.read, Play.settle, Play.settle, Play.finish,
    Play.abort, Play.disconnect, Play.drain, Play.measure, Play.advance, Play.jump, Play.dial, Play.stick,
)  # fmt: skip
