"""The judges: quiet while everything is right, and each invariant has a crime that they notice."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from networkio_proto import (
    Close,
    CloseCode,
    Config,
    Connection,
    ConnectionLost,
    ConnectionState,
    Delivery,
    Details,
    GapRange,
    Limits,
    MessagesRead,
    Outcome,
    Transmit,
)
from networkio_proto.arbiter import Arbitration, Decision, Newcomer
from networkio_proto.frames import encode_ack, encode_fin, encode_frame, encode_ping, encode_skip
from networkio_proto.inbox import Inbox
from networkio_proto.ledger import Failure
from networkio_proto.outbox import Entry
from networkio_proto.timers import Timed
from networkio_testing.judges import INVARIANTS, Judge, Violation
from networkio_testing.world import Host, Wire, World
from tests.testing.test_machines import MISTAKES


class Court:
    """A judged world in which "a" dials "b", each has sent three messages, and all wait to be taken."""

    def __init__(self, config: Config | None = None, *, quiet: bool = False) -> None:
        self.world = World(7)
        self.judge = Judge(self.world)
        self.a, self.b = self.world.host("a", config), self.world.host("b", config)
        self.a.dial("b")
        if not quiet:
            self.a.send("b", b"1", b"2", b"3")
            self.b.send("a", b"1", b"2", b"3")
        self.world.run(1.0)

    @property
    def wire(self) -> Wire:
        wire = self.world.live("a", "b")
        assert wire is not None
        return wire

    @property
    def end(self) -> Connection:
        """The connection of a."""
        connection = self.wire.ends[0]
        assert connection is not None
        return connection

    @property
    def inbox(self) -> Inbox:
        """That of b."""
        inbox = self.b.session("a").inbox
        assert inbox is not None
        return inbox

    def change(self, index: int, **changes: object) -> None:
        """Change a message that waits in the inbox of b."""
        _, sequence, payload, flags, details = self.inbox.ready[index]
        values: dict[str, object] = {"sequence": sequence, "payload": payload, "flags": flags, **changes}
        details = replace(details or Details(), **values.pop("details", {}))  # type: ignore[arg-type]
        self.inbox.ready[index] = (self.inbox, *values.values(), details)  # type: ignore[assignment]

    def say(self, frame: bytes, host: Host | None = None) -> None:
        """The connection of a, or of another host, says something that its session did not ask for."""
        connection = self.end if host in (None, self.a) else self.wire.ends[1]
        assert connection is not None
        connection.last_words(frame)
        connection.want_write(self.world.now)
        (host or self.a).pump()


def crime(invariant: str, text: str, **config: object) -> Callable[[Callable[[Court], None]], Callable[[Court], None]]:
    """Register something that breaks an invariant, and what the judge says to it."""

    def register(commit: Callable[[Court], None]) -> Callable[[Court], None]:
        CRIMES.append(pytest.param(invariant, text, commit, id=f"{invariant}: {commit.__name__}"))
        return commit

    return register


CRIMES: list[object] = []


@crime("I1", "received of <Host a, life 1> went from 3 back to 2")
def forgets_what_was_received(court: Court) -> None:
    court.a.session("b").outbox.received = 2
    court.a.pump()


@crime("I1", "0 99 4")
def believes_that_more_is_received_than_was_ever_sent(court: Court) -> None:
    court.a.session("b").outbox.received = 99
    court.a.pump()


@crime("I1", "1 99 4")
def sends_from_beyond_its_end(court: Court) -> None:
    court.a.session("b").outbox.cursor = 99
    court.a.pump()


@crime("I1", "has read 9 and received 3")
def reads_more_than_it_has(court: Court) -> None:
    court.inbox.read = 9
    court.b.pump()


@crime("I1", "(2, 0) was (3, 0)")
def forgets_what_came(court: Court) -> None:
    court.inbox.received = 2
    court.b.pump()


@crime("I1", "acknowledges (1, 0, 0, 0) after (3,")
def takes_an_acknowledgement_back(court: Court) -> None:
    court.b.read("a")
    court.say(encode_ack(1, 0, 0, 0), court.b)


@crime("I2", "2 from a comes after 3")
def hands_over_in_the_wrong_order(court: Court) -> None:
    court.b.take("a")
    court.inbox.ready.reverse()
    court.change(0, details={"gap": (GapRange(2, 2, 2),)})
    court.judge._log(court.a, "b").messages[2].outcome = Outcome.EXPIRED
    court.b.take("a", 2)


@crime("I2", "3 from a comes without a word on {2}")
def leaves_a_message_out(court: Court) -> None:
    del court.inbox.ready[1]
    court.b.take("a", 2)


@crime("I2", "1 of a is passed over, and has not ended")
def calls_a_message_a_gap_that_is_under_way(court: Court) -> None:
    court.inbox.ready.popleft()
    court.change(0, details={"gap": (GapRange(1, 1, 2),)})
    court.b.take("a")


@crime("I2", "2 from a overtakes [1]")
def hands_over_the_next_before_the_released(court: Court) -> None:
    (delivery,) = court.b.take("a")
    court.b.release("a", delivery)
    court.inbox.ready.append(court.inbox.returned.pop())
    court.b.take("a")


@crime("I2", "2 from a overtakes [1, 2]")
def hands_over_the_released_in_the_wrong_order(court: Court) -> None:
    for delivery in court.b.take("a", 2):
        court.b.release("a", delivery)
    court.inbox.returned.reverse()
    court.b.take("a")


@crime("I2", "sends 3 in place of 4")
def transmits_twice(court: Court) -> None:
    court.a.session("b").outbox.cursor = 3
    court.say(encode_ping(1))


@crime("I2", "sends 9 in place of 4")
def ends_before_its_end(court: Court) -> None:
    court.say(encode_fin(9))


@crime("I2", "sends 7 in place of 4")
def skips_what_it_has_not_sent(court: Court) -> None:
    court.say(encode_skip(7, 8, 2))


@crime("I2", "continues 3 inside of 0")
def continues_what_it_has_not_begun(court: Court) -> None:
    court.say(encode_frame(0x10, (3).to_bytes(8, "big"), flags=2))


@crime("I2", "sends 4 before the handshake is over")
def sends_before_the_handshake(court: Court) -> None:
    court.wire.cut()
    court.world.advance(0.1)
    (wire,) = court.a.answer_dials()
    connection = wire.ends[0]
    assert connection is not None
    connection.last_words(encode_fin(4))
    connection.want_write(court.world.now)
    court.a.pump()


@crime("I3", "the bytes of 1 from a changed under way")
def changes_bytes(court: Court) -> None:
    court.change(0, payload=b"one")
    court.b.take("a")


@crime("I3", "the headers of 1 from a changed under way")
def changes_headers(court: Court) -> None:
    court.change(0, details={"headers": {"key": 1}})
    court.b.take("a")


@crime("I3", "1 from a came with flags 0")
def changes_flags(court: Court) -> None:
    court.change(0, flags=0)
    court.b.take("a")


@crime("I3", "1 from a goes by the name of another message")
def changes_names(court: Court) -> None:
    court.change(0, details={"origin": bytes(24)})
    court.b.take("a")


@crime("I3", "a never accepted 9 for b")
def invents_a_message(court: Court) -> None:
    court.change(0, sequence=9)
    court.b.take("a")


@crime("I3", "has an inbox for an outbox that a never had")
def invents_an_outbox(court: Court) -> None:
    court.b.session("a").inboxes.boxes.append(Inbox(bytes(16), bytes(16), 5))
    court.b.pump()


@crime("I3", "holds 4, not sent yet")
def holds_what_was_not_sent(court: Court) -> None:
    court.inbox.received = 4
    court.b.pump()


@crime("I3", "gave the number 3 to two messages")
def numbers_two_messages_alike(court: Court) -> None:
    court.a.session("b").outbox.next = 3
    court.a.send("b", b"3 again")


@crime("I3", "names an outbox like another")
def names_two_outboxes_alike(court: Court) -> None:
    court.a.session("c").outbox.outbox_id = court.a.session("b").outbox.outbox_id
    court.a.pump()


@crime("I3", "sends 4 under another outbox than it stated")
def renames_an_outbox_on_a_live_connection(court: Court) -> None:
    outbox = court.a.session("b").outbox
    court.judge._held[(outbox.receiver or b"", bytes(16))] = (3, 3)
    outbox.outbox_id = bytes(16)
    court.a.send("b", b"4")


@crime("I3", "is live with another outbox than it stated")
def goes_live_with_another_outbox(court: Court) -> None:
    court.judge._held[(court.b.endpoint.incarnation, bytes(16))] = (3, 3)
    court.wire.cut()
    court.world.advance(0.1)
    (wire,) = court.a.answer_dials()
    for end in (0, 1, 0):
        wire.deliver(end)
    connection, outbox = wire.ends[0], court.a.session("b").outbox
    assert connection is not None
    connection.outbox_told = outbox.outbox_id = bytes(16)
    wire.throttle(0, 0)
    wire.deliver(1)


@crime("I4", "1 from a says attempt 1 after 1")
def hands_over_twice(court: Court) -> None:
    court.inbox.ready.append(court.inbox.ready[0])
    court.b.take("a", 4)


@crime("I4", "1 from a was handed over twice")
def hands_over_twice_and_counts(court: Court) -> None:
    court.inbox.ready.append(court.inbox.ready[0])
    court.change(3, details={"attempt": 2})
    court.b.take("a", 4)


@crime("I4", "1 was settled twice")
def settles_twice(court: Court) -> None:
    (delivery,) = court.b.take("a")
    court.b.settle("a", delivery)
    court.judge.settled(court.b, "a", delivery, None)


@crime("I4", "1 from a comes after what was accepted later")
def repeats_a_renamed_outbox_without_a_flag(court: Court) -> None:
    court.b.read("a")
    court.wire.cut()
    outbox = court.a.session("b").outbox
    origin = outbox.outbox_id
    outbox.rename(bytes(16), mark=False)
    court.world.run(1.0)
    assert [delivery[4] and delivery[4].origin for delivery in court.inbox.ready] == [
        origin + sequence.to_bytes(8, "big") for sequence in (1, 2, 3)
    ]
    court.b.take("a")


@crime("I5", "1 of <Host a, life 1> is READ, and nobody read it")
def believes_that_everything_is_read(court: Court) -> None:
    court.a.session("b").outbox.acknowledge(3, 3)
    court.a.pump()


@crime("I5", "believes that 4 are received, the peer has 3")
def believes_that_more_is_received_than_came(court: Court) -> None:
    court.wire.throttle(0, 0)
    court.a.send("b", b"4")
    court.a.session("b").outbox.received = 4
    court.a.pump()


@crime("I5", "counts 1 of a as read, and its application holds it")
def reads_without_the_application(court: Court) -> None:
    court.inbox.read = 1
    court.b.pump()


@crime("I5", "the sender is told that nobody saw 1, but it was")
def cancels_what_was_seen(court: Court) -> None:
    court.b.take("a")
    court.judge.cancelled(court.a, "b", 1, True)


@crime("I5", "1 from a was reported as never seen")
def shows_what_was_cancelled(court: Court) -> None:
    court.judge.cancelled(court.a, "b", 1, True)
    court.b.take("a")


@crime("I5", "1 is REJECTED, and nobody rejected it")
def invents_a_rejection(court: Court) -> None:
    court.a.session("b").outbox.reject(1, 7, "no")
    court.a.pump()


@crime("I5", "3 is CANCELLED, and nobody cancelled it")
def cancels_by_itself(court: Court) -> None:
    court.a.session("b").outbox.bury(3, 3)  # type: ignore[arg-type]
    court.a.pump()


@crime("I5", "3 is EXPIRED before its time")
def expires_too_early(court: Court) -> None:
    court.a.session("b").outbox.bury(3, 2)  # type: ignore[arg-type]
    court.a.pump()


@crime("I6", "read 2 after 3, received 3")
def announces_backwards(court: Court) -> None:
    for through in (3, 2):
        court.judge.noticed(court.a, MessagesRead("b", through))


@crime("I7", "counts 4 accepted")
def counts_too_many(court: Court) -> None:
    court.a.session("b").outbox.ledger.accepted += 1
    court.a.pump()


@crime("I7", "counts 1 Outcome.LOST")
def counts_an_end_that_was_not(court: Court) -> None:
    court.a.session("b").outbox.ledger.lost += 1
    court.a.pump()


@crime("I7", "9 of <Host a, life 1> failed and was never accepted")
def fails_what_was_never_accepted(court: Court) -> None:
    court.a.session("b").outbox._fail(Failure(9, 9, Outcome.LOST, "", "unknown"))
    court.a.pump()


@crime("I7", "3 is Outcome.CANCELLED and then Outcome.LOST")
def ends_a_message_twice(court: Court) -> None:
    court.a.session("c")
    court.a.send("c", b"1", b"2", b"3")
    court.a.cancel("c", 3)
    outbox = court.a.session("c").outbox
    outbox.failures._ranges[0] = replace(outbox.failures._ranges[0], outcome=Outcome.LOST)
    outbox.ledger.lost += 1
    court.a.pump()


@crime("I7", "keeps 3: False")
def drops_a_payload_without_an_outcome(court: Court) -> None:
    outbox = court.a.session("b").outbox
    gone = Entry(b"")
    gone.skip = 1
    outbox.entries[3 - outbox.origin] = gone
    court.judge.audit(court.a)


@crime("I8", "4 of <Host a, life 1> was never accepted")
def drops_what_was_never_accepted(court: Court) -> None:
    court.b.read("a")
    court.world.run(1.0)
    outbox = court.a.session("b").outbox
    outbox.append(b"4", True)
    outbox.cursor = 5
    outbox.finish(Outcome.READ, "")
    outbox.received = 4
    court.judge._held[(outbox.receiver or b"", outbox.outbox_id)] = (4, 4)
    outbox.failures._ranges.clear()
    court.a.pump()


@crime("I9", "1 from a was seen before, and is not flagged")
def shows_again_without_a_flag(court: Court) -> None:
    court.b.take("a")
    court.b.restart()
    court.world.run(5.0)
    court.change(0, details={"redelivered": False})
    court.b.take("a")


@crime("I9", "sends 4, flags 44, marks 0")
def flags_a_first_transmission(court: Court) -> None:
    court.a.session("b").outbox.marked = 9
    court.a.send("b", b"4")


@crime("I9", "sends 1, flags 40, marks 3")
def loses_its_marks(court: Court) -> None:
    court.b.restart()
    court.world.advance(1.0)
    court.a.session("b").outbox.marked = 0
    court.a.session("b").outbox.sent = 0
    court.world.run(5.0)


@crime("I11", "was changed by <Connection from ? preamble>")
def lets_a_stranger_make_a_session(court: Court) -> None:
    connection = court.b.endpoint.accept(court.world.now)
    wire = Wire(court.world, 99, (court.a, court.b))
    wire.ends[1] = connection
    court.judge.arriving(wire, 1)
    court.b.session("stranger")
    court.judge.arrived(wire, 1)


@crime("I13", "is live on [")
def keeps_two_connections(court: Court) -> None:
    other = court.b.endpoint.accept(court.world.now)
    other.session = court.b.session("a")
    other.state = ConnectionState.LIVE
    court.b.pump()


@crime("I14", "takes generation 1 after 1")
def gives_a_generation_out_twice(court: Court) -> None:
    court.b.session("a").arbitration.generation = 0
    court.a.session("b").arbitration._seen.clear()
    court.wire.cut()
    court.world.run(5.0)


@crime("I14", "generation 2 is <Wire 2 a->b> and wire 1")
def gives_two_connections_one_generation(court: Court) -> None:
    court.judge._chosen[(court.b.endpoint.incarnation, "a", 2)] = 1
    court.wire.cut()
    court.world.run(5.0)


@crime("I14", "takes dial 2 after 9")
def takes_an_old_dial(court: Court) -> None:
    court.judge._dials[(court.b.endpoint.incarnation, court.a.endpoint.incarnation)] = 9
    court.wire.cut()
    court.world.run(5.0)


@crime("I15", "gave up")
def replaces_a_process_that_answers(court: Court) -> None:
    class Hasty(Arbitration):
        def decide(self, newcomer: Newcomer, incumbent: bytes | None) -> Decision:
            return Decision.TAKE

    session = court.b.session("a")
    hasty = Hasty("b", "a")
    hasty.generation = session.arbitration.generation
    session.arbitration = hasty
    court.world.host("twin", peer_id="a").dial("b")
    court.world.run(1.0)


@crime("I18", "the outbox of <Host a, life 1> costs 1000000000")
def holds_too_much_to_send(court: Court) -> None:
    court.a.session("b").outbox.cost = 10**9
    court.a.pump()


@crime("I18", "the outbox of <Host a, life 1> says 0, it is 195")
def miscounts_an_outbox(court: Court) -> None:
    court.a.session("b").outbox.cost = 0
    court.judge.audit(court.a)


@crime("I18", "counts 0, 195")
def miscounts_an_inbox(court: Court) -> None:
    court.inbox.unsettled = 0
    court.judge.audit(court.b)


@crime("I18", "counts 5, 195")
def miscounts_a_node(court: Court) -> None:
    court.a.endpoint.outbox_cost = 5
    court.judge.audit(court.a)


@crime("I18", "of a")
def holds_too_much_of_a_peer(court: Court) -> None:
    inbox = court.inbox
    delivery: Delivery = (inbox, 4, bytes(30_000_000), 0x40, None)
    inbox.ready.append(delivery)
    inbox.unsettled += 64 + 30_000_000
    court.judge.audit(court.b)


@crime("I18", "bytes of a stranger")
def holds_too_much_of_a_stranger(court: Court) -> None:
    connection = court.b.endpoint.accept(court.world.now)
    connection._decoder.feed(bytes(9000))
    court.b.pump()


@crime("I19", "says")
def says_too_much_to_a_stranger(court: Court) -> None:
    court.wire.cut()
    court.world.advance(0.1)
    (wire,) = court.a.answer_dials()
    connection = wire.ends[1]
    assert connection is not None
    connection.last_words(encode_ping(1))
    connection.want_write(court.world.now)
    court.b.pump()


class Restless(Timed):
    """Is due again at once."""

    def on_timer(self, now: float) -> float:
        return now


class Patient(Timed):
    """Is served once."""

    def on_timer(self, now: float) -> None:
        return None


@crime("I19", "a timer of <Host a, life 1> fires again at once")
def serves_timers_in_vain(court: Court) -> None:
    court.a.endpoint.timers.schedule(Restless(), court.world.now)
    court.a.tick()


@crime("I19", "a timer of <Host a, life 1> fires again at once")
def serves_one_timer_in_vain_among_many(court: Court) -> None:
    court.a.endpoint.timers.schedule(Restless(), court.world.now)
    for _ in range(65):
        court.a.endpoint.timers.schedule(Patient(), court.world.now)
    court.a.tick()


@crime("I19", "has 200 timers")
def collects_timers(court: Court) -> None:
    for _ in range(200):
        court.a.endpoint.timers.schedule_ack(court.a.session("b"), court.world.now + 1000)
    court.a.endpoint.timers._heap.clear()
    court.a.pump()


@crime("I20", "ProtocolError")
def says_nonsense(court: Court) -> None:
    court.wire.pipes[0].data += encode_frame(0x7F, b"")
    court.wire.deliver(0)


@crime("I20", "wrote half a frame")
def writes_half_a_frame(court: Court) -> None:
    court.say(encode_frame(0x80, b"ignored")[:-1])


@crime("I20", "ended by None")
def closes_without_a_reason(court: Court) -> None:
    court.a.endpoint.effects.append(Close(court.end, flush=False))
    court.a.pump()


@crime("I20", "was left without a reason")
def leaves_a_connection(court: Court) -> None:
    court.end.state = ConnectionState.CLOSED
    court.a.session("b").connection = None
    court.a.pump()


@crime("I21", "wants a Transmit after Close")
def writes_after_close(court: Court) -> None:
    connection = court.end
    court.a.disconnect("b")
    court.a.endpoint.effects.append(Transmit(connection))
    court.a.pump()


@crime("I21", "wants a Close after Close")
def says_goodbye_twice(court: Court) -> None:
    connection = court.end
    court.a.disconnect("b")
    court.a.endpoint.effects.append(Close(connection, flush=True))
    court.a.pump()


@crime("I21", "wants a Close after Close")
def drops_twice(court: Court) -> None:
    connection = court.end
    court.a.disconnect("b")
    court.a.endpoint.effects += [Close(connection, flush=False), Close(connection, flush=False)]
    court.a.pump()


@crime("I21", "says frame 20 after CLOSE")
def speaks_after_close(court: Court) -> None:
    connection = court.end
    connection.close(CloseCode.NORMAL, "", court.world.now)
    connection.last_words(encode_ping(1))
    court.a.pump()


@crime("I22", "the application of b has not acknowledged message 1")
def never_reads(court: Court) -> None:
    court.judge.at_rest()


@crime("I22", "holds messages of b")
def holds_for_ever(court: Court) -> None:
    court.b.read("a")
    court.world.run(1.0)
    court.b.session("a").outbox.acknowledge(3, 3)
    for message in court.judge._log(court.b, "a").messages.values():
        message.outcome = Outcome.READ
    court.judge.at_rest()


@crime("I23", "has something to send to b, and does not")
def forgets_to_write(court: Court) -> None:
    outbox = court.a.session("b").outbox
    outbox.append(b"4", True)
    outbox.ledger.accepted += 1
    court.judge._log(court.a, "b").messages[4] = court.judge._log(court.a, "b").messages[3]
    court.a.pump()


@crime("I23", "got messages of a, and there was no notice")
def does_not_tell_of_messages(court: Court) -> None:
    court.inbox.ready.append(court.inbox.ready[0])
    court.b.pump()


@crime("I23", "was not woken for its notices")
def does_not_tell_of_notices(court: Court) -> None:
    court.a.endpoint._waking = True
    court.a.session("b").notices.add(4)
    court.a.pump()


@crime("I23", "<Host b, life 1> has not acknowledged since 1001.0")
def never_acknowledges(court: Court) -> None:
    court.b.take("a", 3)
    delivery = court.inbox.held[1]
    court.b.session("a").acknowledger._delayed = True
    court.b.settle("a", delivery)
    court.world.advance(20.0)


@crime("I24", "made progress and lets ['b'] wait")
def comes_back_late(court: Court) -> None:
    court.b.read("a")
    court.world.run(1.0)
    session = court.a.session("b")
    session.error = ConnectionLost()
    (target,) = session.targets
    known = court.judge._ghosts[session].live
    assert known is not None
    court.wire.cut()
    target.retry_at = court.world.now + 100.0
    court.judge._lost(court.a, session, known)


@crime("I25", "keeps something for b")
def keeps_what_has_ended(court: Court) -> None:
    court.b.read("a")
    court.a.read("b")
    court.world.run(1.0)
    court.a.session("b").outbox.cost = 64
    court.judge.at_rest()


@crime("I25", "the credit of a at <Host b, life 1> does not come back")
def keeps_credit(court: Court) -> None:
    court.b.read("a")
    court.a.read("b")
    court.world.run(1.0)
    court.inbox.unsettled = 64
    court.judge.at_rest()


@crime("I25", "keeps ['b'] waiting for room")
def keeps_somebody_waiting(court: Court) -> None:
    court.b.read("a")
    court.a.read("b")
    court.world.run(1.0)
    court.a.endpoint.starved["b"] = court.a.session("b")
    court.judge.at_rest()


@crime("I25", "still shakes hands")
def keeps_a_handshake(court: Court) -> None:
    court.b.read("a")
    court.a.read("b")
    court.world.run(1.0)
    court.b.endpoint.accept(court.world.now)
    court.judge.at_rest()


@crime("I25", "repeats its rejections to a for ever")
def keeps_rejections(court: Court) -> None:
    (delivery, *rest) = court.b.take("a", 3)
    court.b.settle("a", delivery, reject=(7, "no"))
    for other in rest:
        court.b.settle("a", other)
    court.a.read("b")
    reject = court.inbox.rejects[1]
    court.world.run(1.0)
    court.inbox.rejects[1] = replace(reject, cost=0)
    court.judge.at_rest()


@pytest.mark.parametrize(("invariant", "text", "commit"), CRIMES)
def test_a_judge_notices(invariant: str, text: str, commit: Callable[[Court], None]) -> None:
    court = Court()
    with pytest.raises(Violation, match=re.escape(text)) as caught:
        commit(court)
    assert caught.value.invariant == invariant
    assert INVARIANTS[invariant] in str(caught.value)
    assert "(seed 7, time 10" in str(caught.value)


def test_a_judge_that_was_copied_with_its_world_remembers_what_was_handed_over() -> None:
    court = Court()
    court.b.read("a")
    copied: Court = pickle.loads(pickle.dumps(court))
    with pytest.raises(Violation, match="1 from a comes after what was accepted later"):
        repeats_a_renamed_outbox_without_a_flag(copied)


def test_every_invariant_has_a_crime() -> None:
    committed = {parameter.values[0] for parameter in CRIMES}  # type: ignore[attr-defined]
    assert committed == set(INVARIANTS) - {"I10", "I26"}
    # these two have judges of their own
    assert {"I10", "I26"} <= {noticed for mistake in MISTAKES.values() for noticed in mistake.noticed}


def test_a_judge_is_quiet_while_everything_is_right() -> None:
    court = Court(Config(limits=Limits(frame=8192), window=70_000))
    for size in (0, 1, 5000, 20_000, 100_000):
        court.a.send("b", bytes(size), headers={"size": size})
        court.b.send("a", bytes(size), ttl=100.0)
    court.world.run(1.0)
    for first, second in ((court.a, "b"), (court.b, "a")):
        one, two = first.take(second, 2)
        first.release(second, one)
        first.settle(second, two, reject=(7, "no"))
        assert first.cancel(second, 99) is False
    court.wire.cut()
    court.world.run(5.0)
    court.a.crash()
    court.a.restart()
    court.a.dial("b")
    court.world.run(30.0)
    for _ in range(20):
        court.a.read("b")
        court.b.read("a")
        court.world.run(1.0)
    court.judge.at_rest()
    assert court.judge.tally["redelivered"] > 0
    assert court.judge.tally["verdict B"] > 0
    assert court.judge.tally["handed over again"] == 1
    assert court.judge.tally["REJECTED"] > 0


def test_a_judge_is_quiet_when_very_many_timers_are_due_at_once() -> None:
    court = Court(quiet=True)
    for _ in range(67):
        court.a.endpoint.timers.schedule(Patient(), court.world.now)
    court.a.tick()
    assert court.a.endpoint.timers.next() == court.world.now
    court.a.tick()


def test_a_judge_is_quiet_when_sessions_end_processes_are_gone_and_others_take_their_id() -> None:
    court = Court()
    twin = court.world.host("twin", peer_id="a")
    twin.dial("b")
    twin.send("b", b"from another")
    assert court.a.cancel("b", 1) is False
    court.wire.cut_half(0)
    court.a.send("b", b"4", b"5")
    assert court.a.cancel("b", 4) is True
    court.a.pause()
    court.world.run(60.0)
    court.a.resume()
    twin.crash()
    court.world.run(400.0)
    court.b.read("a")
    court.world.run(1.0)
    court.wire.throttle(0, 0)
    court.a.send("b", b"6")
    assert court.a.cancel("b", 6) is True
    court.wire.throttle(0)
    for host, peer in ((court.a, "b"), (court.b, "a")):
        host.read(peer)
        host.end(peer)
        host.end(peer)
    court.world.run(5.0)
    assert court.a.session("b").closed
    court.judge.at_rest()
    assert court.judge.tally["verdict E"] > 0


def test_a_judge_is_quiet_when_one_side_aborts_while_the_other_comes_back() -> None:
    court = Court()
    court.wire.cut()
    court.b.abort("a")
    court.b.end("a")
    court.world.run(5.0)
    court.a.read("b")
    court.b.read("a")
    court.world.run(60.0)
    court.judge.at_rest()
    assert court.judge.tally["ABANDONED"] == 6


def test_a_judge_is_quiet_when_more_messages_fail_than_can_be_remembered() -> None:
    court = Court(quiet=True)
    court.wire.throttle(0, 0)
    court.a.send("b", b"in the way")
    for sequence in court.a.send("b", *[b"." * 10] * 2100)[::2]:
        court.a.cancel("b", sequence)
    court.wire.throttle(0)
    court.world.run(1.0)
    assert len(court.b.read("a")) == 1051
    court.world.run(1.0)
    court.judge.at_rest()
    assert court.judge.tally["CANCELLED"] == 1050
