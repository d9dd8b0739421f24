"""What the judge of disks excuses, and that it does not excuse what lies next to it."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from networkio_proto import Config, Details
from networkio_proto.frames import encode_ack
from networkio_proto.inbox import Inbox
from networkio_proto.journal import MessagesEnded, OutboxTrimmed, ReceiverKnown
from networkio_testing.disk import Disk
from networkio_testing.durable import DurableJudge
from networkio_testing.judges import Violation
from networkio_testing.world import Host, World


class Court:
    """A judged world in which "a" may dial "b", and some keep a journal."""

    def __init__(self, durable: str = "ab", config: Config | None = None) -> None:
        self.world = World(7)
        self.judge = DurableJudge(self.world)
        self.a, self.b = (self.world.host(name, config, disk=Disk() if name in durable else None) for name in "ab")

    def meet(self) -> None:
        self.a.dial("b")
        self.world.run(30.0)
        assert self.world.live("a", "b") is not None

    def restart(self, host: Host) -> None:
        host.crash(reset=True)
        host.restart()
        if host is self.a:
            host.dial("b")
        self.world.run(30.0)

    def put_back(self, host: Host, batches: int) -> None:
        """A copy with so many batches, and the process begins; "a" does not dial yet."""
        host.crash(reset=True)
        disk = disk_of(host)
        disk.missing = len(disk.batches) - batches
        assert disk.missing > 0
        del disk.batches[batches:]
        host.restart()

    @property
    def inbox(self) -> Inbox:
        """That of b."""
        inbox = self.b.session("a").inbox
        assert inbox is not None
        return inbox

    def unflag(self) -> None:
        """What waits first in the inbox of b is not flagged any more."""
        inbox, sequence, payload, flags, details = self.inbox.ready[0]
        assert details is not None
        assert details.redelivered
        self.inbox.ready[0] = (inbox, sequence, payload, flags & ~4, replace(details, redelivered=False))

    def repeat(self, sequence: int, payload: bytes) -> None:
        """b hands over once more, flagged, what it has in its present inbox."""
        self.inbox.ready.appendleft((self.inbox, sequence, payload, 64, Details(redelivered=True)))
        self.b.take("a")


def disk_of(host: Host) -> Disk:
    assert host.disk is not None
    return host.disk


def taken(court: Court) -> list[tuple[bytes, bool]]:
    """What b can take now, and whether it is flagged."""
    return [(d[2], d[4] is not None and d[4].redelivered) for d in court.b.take("a", 99)]


# -- what was on disk -------------------------------------------------------------------------------------------------


def test_an_old_copy_lacks_the_newest_messages_only() -> None:
    court = Court()
    for text in (b"1", b"2", b"3"):
        court.a.send("b", text)
    court.a.crash()
    disk = disk_of(court.a)
    disk.rewind(0.99)
    del disk.batches[-2]
    with pytest.raises(Violation, match=r"I10 is broken .* lost 2 messages"):
        court.a.restart()


def test_what_is_lost_after_an_old_copy_was_put_back_is_missed() -> None:
    court = Court()
    court.a.send("b", b"1")
    court.put_back(court.a, 0)
    court.a.send("b", b"2")
    court.a.crash()
    disk_of(court.a).batches.pop()
    with pytest.raises(Violation, match=r"I10 is broken .* lost 1 messages"):
        court.a.restart()


# -- what was read comes again ----------------------------------------------------------------------------------------


def receiver_put_back() -> Court:
    """b has read both messages, and its copy has it that it read the first."""
    court = Court("b")
    court.meet()
    court.a.send("b", b"1", b"2")
    court.world.run(1.0)
    court.b.read("a", 1)
    kept = len(disk_of(court.b).batches)
    wire = court.world.live("a", "b")
    assert wire is not None
    wire.black_hole()
    court.b.read("a", 1)
    court.put_back(court.b, kept)
    court.world.run(60.0)
    return court


def test_a_receiver_that_was_put_back_gets_again_what_its_copy_has_not_read() -> None:
    assert taken(receiver_put_back()) == [(b"2", True)]


def test_a_receiver_that_was_put_back_does_not_get_again_what_its_copy_has_read() -> None:
    court = receiver_put_back()
    with pytest.raises(Violation, match=r"I4 is broken .* 1 from a comes again, and .* on disk that it was read"):
        court.repeat(1, b"1")


def sender_put_back() -> Court:
    """b has read both messages, of which a has a copy that knows of no receiver."""
    court = Court()
    court.a.send("b", b"1", b"2")
    kept = len(disk_of(court.a).batches)
    court.meet()
    assert court.b.read("a") == [b"1", b"2"]
    court.world.run(1.0)
    court.put_back(court.a, kept)
    court.a.dial("b")
    court.world.run(30.0)
    return court


def test_what_an_old_copy_brings_back_comes_again_and_is_flagged() -> None:
    court = sender_put_back()
    assert taken(court) == [(b"1", True), (b"2", True)]


def test_what_an_old_copy_brings_back_does_not_come_again_without_a_flag() -> None:
    court = sender_put_back()
    court.unflag()
    with pytest.raises(Violation, match=r"I4 is broken .* 1 from a comes again"):
        court.b.take("a")


def test_what_was_accepted_after_an_old_copy_was_put_back_does_not_come_again() -> None:
    court = sender_put_back()
    court.a.send("b", b"3")
    court.world.run(1.0)
    assert court.b.read("a") == [b"1", b"2", b"3"]
    with pytest.raises(Violation, match=r"I4 is broken .* 3 from a comes again, and .* on disk that it was read"):
        court.repeat(3, b"3")


def test_what_an_old_copy_brought_back_and_is_read_again_does_not_come_a_third_time() -> None:
    court = sender_put_back()
    assert court.b.read("a") == [b"1", b"2"]
    court.restart(court.b)
    with pytest.raises(Violation, match=r"I4 is broken .* 1 from a comes again, and .* on disk that it was read"):
        court.repeat(1, b"1")


def test_an_outbox_with_what_was_read_gets_no_new_name_without_an_old_copy() -> None:
    court = Court()
    court.meet()
    court.a.send("b", b"1")
    court.world.run(1.0)
    wire = court.world.live("a", "b")
    assert wire is not None
    wire.black_hole()
    court.b.read("a")
    court.a.session("b").rename_outbox(mark=True)
    with pytest.raises(Violation, match=r"I4 is broken .* names its outbox anew with \[1\]"):
        court.a.pump()


def test_what_was_never_transmitted_is_not_flagged_because_an_outbox_got_a_new_name() -> None:
    court = Court("a")
    court.a.send("b", b"1")
    court.a.crash()
    court.a.restart()
    court.a.session("b").rename_outbox(mark=True)
    court.a.session("b").outbox.marked = 1
    court.a.pump()
    with pytest.raises(Violation, match=r"I9 is broken .* sends 1, flags 54"):
        court.meet()


# -- what an old copy does not know -----------------------------------------------------------------------------------


def copied(court: Court, *, known: bool = False) -> None:
    """b has taken a message, and a has a copy from before or after it met b."""
    court.a.send("b", b"1")
    kept = len(disk_of(court.a).batches)
    court.meet()
    assert taken(court) == [(b"1", False)]
    court.a.send("b", b"2")
    if known:
        records = [batch for batch in disk_of(court.a).batches if any(isinstance(r, ReceiverKnown) for r in batch)]
        kept = disk_of(court.a).batches.index(records[-1]) + 1
    court.put_back(court.a, kept)


def test_a_copy_from_before_it_met_the_receiver_may_believe_that_nobody_saw_its_messages() -> None:
    court = Court()
    copied(court)
    assert court.a.cancel("b", 1) is True


def test_a_copy_that_knows_the_receiver_may_not_believe_that() -> None:
    court = Court()
    copied(court, known=True)
    assert court.a.cancel("b", 1) is False
    with pytest.raises(Violation, match=r"I5 is broken .* told that nobody saw 1"):
        court.judge.cancelled(court.a, "b", 1, True)


def test_a_copy_that_has_met_the_receiver_again_may_not_believe_that() -> None:
    court = Court()
    copied(court)
    court.a.dial("b")
    court.world.run(30.0)
    assert court.a.cancel("b", 1) is False
    with pytest.raises(Violation, match=r"I5 is broken .* told that nobody saw 1"):
        court.judge.cancelled(court.a, "b", 1, True)


def test_of_what_is_accepted_after_a_copy_was_put_back_nobody_may_believe_that() -> None:
    court = Court()
    copied(court)
    court.a.dial("b")
    court.a.send("b", b"new")
    court.world.run(30.0)
    assert taken(court) == [(b"2", False), (b"1", True), (b"new", False)]
    with pytest.raises(Violation, match=r"I5 is broken .* told that nobody saw 2"):
        court.judge.cancelled(court.a, "b", 2, True)


def test_where_both_have_forgotten_a_message_comes_without_a_flag_and_after_that_with_it() -> None:
    court = Court("a")
    copied(court)
    court.restart(court.b)
    court.a.dial("b")
    court.world.run(30.0)
    assert taken(court) == [(b"1", False)]
    court.restart(court.b)
    court.unflag()
    with pytest.raises(Violation, match=r"I9 is broken .* 1 from a was seen before, and is not flagged"):
        court.b.take("a")


def test_an_old_message_does_not_come_in_place_of_the_new_one_that_has_its_number() -> None:
    court = Court()
    copied(court)
    court.a.dial("b")
    court.a.send("b", b"new")
    court.world.run(30.0)
    assert court.b.read("a", 2) == [b"2", b"1"]
    inbox, sequence, payload, *rest = court.inbox.ready[0]
    assert (sequence, payload) == (2, b"new")
    court.inbox.ready[0] = (inbox, sequence, b"2", *rest)  # type: ignore[assignment]
    with pytest.raises(Violation, match=r"I3 is broken .* the bytes of 2 from a changed under way"):
        court.b.take("a")


# -- order, bases and positions ---------------------------------------------------------------------------------------


def test_what_was_accepted_earlier_does_not_come_later_under_a_new_name_although_nobody_saw_it() -> None:
    court = Court("")
    court.a.send("b", b"1", b"2")
    court.meet()
    court.inbox.ready.popleft()
    court.inbox.ready[0] = (*court.inbox.ready[0][:4], None)
    court.judge._reader(court.b.endpoint.incarnation, court.inbox.outbox_id).last = 1
    assert court.b.take("a")[0][2] == b"2"
    wire = court.world.live("a", "b")
    assert wire is not None
    wire.cut()
    court.a.session("b").outbox.rename(bytes(16), mark=False)
    court.world.run(5.0)
    with pytest.raises(Violation, match=r"I4 is broken .* 1 from a comes after what was accepted later"):
        court.b.take("a")


@pytest.mark.parametrize("copy", [True, False])
def test_the_base_of_an_inbox_goes_back_for_an_old_copy_only(copy: bool) -> None:
    court = Court("a")
    court.a.send("b", b"1", b"2")
    kept = len(disk_of(court.a).batches)
    court.meet()
    assert court.b.read("a") == [b"1", b"2"]
    court.world.run(1.0)
    court.restart(court.b)
    assert (court.inbox.empty, court.inbox.received) == (True, 2)
    if copy:
        court.put_back(court.a, kept)
        court.inbox.rebase(1, court.inbox.run)
        court.b.pump()
    else:
        court.inbox.rebase(1, court.inbox.run)
        with pytest.raises(Violation, match=r"I1 is broken .* \(0, 0\) was \(2, 2\)"):
            court.b.pump()


@pytest.mark.parametrize("arrived", [True, False])
def test_what_a_sender_states_counts_where_it_has_arrived(arrived: bool) -> None:
    court = Court("b")
    court.meet()
    wire = court.world.live("a", "b")
    assert wire is not None
    tap, connection = court.judge._tap(wire, 0), wire.ends[1]
    assert connection is not None
    assert tap.attach is not None
    court.judge._stating[(wire.number, 0)].append((tap.size, tap.attach.outbox_id, 1))
    court.a.send("b", b"1")
    if arrived:
        court.world.run(1.0)
    connection.last_words(encode_ack(1, 1, 1 << 20, 1))
    connection.want_write(court.world.now)
    if arrived:
        court.b.pump()
    else:
        with pytest.raises(Violation, match=r"I10 is broken .* acknowledges 1 as read, on disk is 0"):
            court.b.pump()


# -- outcomes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [True, False])
def test_what_was_cancelled_before_a_crash_is_read_only_where_the_peer_was_told_to_pass_it_over(told: bool) -> None:
    court = Court("a")
    court.a.send("b", b"1")
    assert court.a.cancel("b", 1)
    court.a.send("b", b"2")
    if told:
        court.meet()
        assert court.b.take("a")[0][2] == b"2"
    court.a.crash(reset=True)
    disk = disk_of(court.a)
    ends = (MessagesEnded, OutboxTrimmed)
    disk.batches = [tuple(r for r in batch if not isinstance(r, ends)) for batch in disk.batches]
    court.a.restart()
    outbox = court.a.session("b").outbox
    assert outbox.first == 1
    outbox.acknowledge(1, 1)
    court.judge._held[(outbox.receiver or b"", outbox.outbox_id)] = (2, 1)
    if told:
        court.a.pump()
    else:
        with pytest.raises(Violation, match=r"I5 is broken .* 1 of .* is READ, and nobody read it"):
            court.a.pump()


def test_what_an_earlier_process_settled_in_vain_is_not_read() -> None:
    court = Court("b")
    court.meet()
    court.a.send("b", b"1")
    court.world.run(1.0)
    disk_of(court.b).delay = inf
    court.b.read("a")
    court.restart(court.b)
    assert (court.inbox.received, court.inbox.read) == (1, 0)
    court.inbox.read = 1
    with pytest.raises(Violation, match=r"I5 is broken .* counts 1 of a as read"):
        court.b.pump()


# -- what every judge excuses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("met", [True, False])
def test_a_second_process_is_an_excuse_for_those_who_met_it(met: bool) -> None:
    court = Court("")
    court.a.send("b", b"1")
    court.meet()
    assert taken(court) == [(b"1", False)]
    twin = court.world.host("twin", peer_id="a")
    if met:
        twin.dial("b")
        court.a.pause()
        court.world.run(90.0)
        assert twin.session("b").connected
        court.judge.cancelled(court.a, "b", 1, True)
    else:
        with pytest.raises(Violation, match=r"I5 is broken .* told that nobody saw 1"):
            court.judge.cancelled(court.a, "b", 1, True)


@pytest.mark.parametrize("sequence", [1, 2])
def test_only_the_message_that_is_half_sent_may_be_read_meanwhile(sequence: int) -> None:
    court = Court("")
    court.meet()
    court.a.send("b", b"1", b"2", b"3")
    court.world.run(1.0)
    court.b.read("a")
    court.world.run(1.0)
    outbox, tap = court.a.session("b").outbox, court.judge._ghosts[court.a.session("b")].tap
    assert tap is not None
    tap.inside, outbox.cursor, outbox.fragment = 2, sequence, 1
    if sequence == 2:
        court.judge._look_at_outbox(court.a, court.a.session("b"), court.judge._ghosts[court.a.session("b")])
    else:
        with pytest.raises(Violation, match=r"I1 is broken .*: 4 1 4"):
            court.judge._look_at_outbox(court.a, court.a.session("b"), court.judge._ghosts[court.a.session("b")])


# -- a copy of a copy -------------------------------------------------------------------------------------------------


def copied_twice(durable: str = "ab", *, met: bool = False) -> Court:
    """a accepted "2" on an old copy, b got it under a new name, and a is put back to a copy of that copy.

    That is one from after the two had ``met``, or not; no copy has the name that b tells in between.  A durable b has
    read everything.
    """
    court = Court(durable, Config(session_expiry=90.0))
    court.a.send("b", b"1")
    court.meet()
    kept = len(disk_of(court.a).batches)
    court.b.pause()
    court.world.run(300.0)
    court.b.resume()
    court.a.send("b", b"lost")
    court.world.run(60.0)
    court.put_back(court.a, kept)
    court.a.send("b", b"2")
    kept = len(disk_of(court.a).batches)
    court.b.dial("a")
    court.world.run(60.0)
    if met:
        court.a.send("b", b"3")
        kept = len(disk_of(court.a).batches)
    court.world.run(1.0)
    deliveries = court.b.take("a", 99)
    assert [delivery[2] for delivery in deliveries] == [b"1", b"lost", b"1", b"2"] + [b"3"] * met
    for delivery in deliveries * (durable == "ab"):
        court.b.settle("a", delivery)
    court.a.send("b", b"gone")
    court.put_back(court.a, kept)
    return court


def test_a_copy_of_a_copy_may_not_know_of_what_followed_from_that() -> None:
    court = copied_twice()
    court.meet()
    assert taken(court) == [(b"gone", False), (b"2", False)]


@pytest.mark.parametrize("met", [False, True])
def test_a_copy_from_after_they_met_again_knows_what_followed(met: bool) -> None:
    court = copied_twice("a", met=met)
    court.restart(court.b)
    court.meet()
    court.b.take("a")
    court.unflag()
    if met:
        with pytest.raises(Violation, match=r"I9 is broken .* 2 from a was seen before, and is not flagged"):
            court.b.take("a")
    else:
        court.b.take("a")
