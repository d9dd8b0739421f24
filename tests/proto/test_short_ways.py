"""The short ways of sending and reading: what they do is what the long ones do, where they do anything."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from networkio_proto import COST_PER_MESSAGE, Config, DecodeError, Delivery, MessageNotHeld, MsgpackCodec, Session
from networkio_proto.handles import MessageHandle
from networkio_proto.peers import NOTHING
from tests.proto.helpers import pair
from tests.proto.helpers_node import Driver, Far, Net
from tests.proto.helpers_session import hosts
from tests.proto.helpers_wire import fingerprint

#: what the applications do, one after the other
OPS = ("send", "send large", "send raw", "advance", "advance", "advance", "read", "read", "release", "reject", "answer",
       "wait", "wait long", "cut", "end", "drain")  # fmt: skip

#: small enough for all of it to run full, and to be worth telling
_CONFIG = Config(window=4000, window_guaranteed=4000, window_max=8000, ack_messages=5, outbox_limit=3000)


class Application:
    """Sends from "a" and reads at "b", the short ways first if it is ``short``; counts how often they were enough."""

    def __init__(self, *, short: bool) -> None:
        self.world = pair(_CONFIG)
        self.a, self.b = hosts(self.world)
        self.short = short
        self.used = 0
        self.held: Delivery | None = None
        self.heard: list[bytes] = []

    @property
    def sender(self) -> Session:
        return self.a.session("b")

    @property
    def reader(self) -> Session:
        return self.b.session("a")

    def send(self, size: int, raw: bool = False, count: int = 4) -> None:
        """Some messages in one turn."""
        for number in range(count):
            payload = bytes([number]) * size
            if self.short and self.sender.streaming() and self.sender.stream(payload, raw):
                self.used += 1
                continue
            try:
                self.sender.send(payload, self.world.now, raw=raw)
            except Exception as error:  # full, or ended: both worlds must say so
                self.heard.append(type(error).__name__.encode())
        self.a.pump(self.sender)

    def advance(self) -> None:
        """As an iterator: settle the one in hand, take the next."""
        reading = self.reader.reading() if self.short else None
        if reading is not None and (delivery := reading.exchange(self.held)) is not None:
            self.used += 1
            self._take(delivery)
            return
        if self.held is not None:
            self.reader.settle(self.held, self.world.now)
        self._take(self.reader.take_one())

    def read(self) -> None:
        """Take and settle one."""
        reading = self.reader.reading() if self.short else None
        if reading is not None and reading.consume(first := reading.ready[0]):
            self.used += 1
            self.heard.append(first[2])
            return
        delivery = self.reader.take_one()
        if delivery is not None:
            self.heard.append(delivery[2])
            self.reader.settle(delivery, self.world.now)

    def _take(self, delivery: Delivery | None) -> None:
        self.held = delivery
        if delivery is not None:
            self.heard.append(delivery[2])

    def settle(self, how: str) -> None:
        """Another end of the one in hand."""
        held, self.held = self.held, None
        if held is not None and how == "release":
            self.reader.release(held, self.world.now)
        elif held is not None:
            self.reader.settle(held, self.world.now, reject=(1, "no"))

    def act(self, op: str) -> None:
        """One of the OPS."""
        world, now = self.world, self.world.now
        acts: dict[str, Callable[[], object]] = {
            "send": lambda: self.send(20), "send large": lambda: self.send(2200, count=2),
            "send raw": lambda: self.send(7, raw=True), "advance": self.advance, "read": self.read,
            "release": lambda: self.settle("release"), "reject": lambda: self.settle("reject"),
            "answer": lambda: self.reader.can_send and self.reader.send(b"r", now),
            "wait": lambda: world.run(0.002), "wait long": lambda: world.run(1.0),
            "cut": lambda: world.open_wires()[0].cut() if world.open_wires() else None,
            "end": lambda: self.sender.end(now), "drain": lambda: self.reader.drain(now),
        }  # fmt: skip
        acts[op]()
        for host in (self.a, self.b):
            host.pump()

    def state(self) -> object:
        """Everything that both nodes know, and what was said."""
        said = [(pipe.delivered, bytes(pipe.data)) for wire in self.world.wires for pipe in wire.pipes]
        return [fingerprint(host.endpoint) for host in (self.a, self.b)], said, self.heard, self.world.now


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(OPS), min_size=20, max_size=80))
def test_the_short_ways_leave_everything_as_the_long_ones_do(ops: list[str]) -> None:
    short, long = Application(short=True), Application(short=False)
    for op in ["send", "wait", *ops]:
        short.act(op)
        long.act(op)
        assert short.heard == long.heard, op
    assert short.state() == long.state()


@pytest.mark.parametrize("way", ["send", "advance", "read"])
def test_the_short_ways_are_the_usual_ones(way: str) -> None:
    """In the middle of a stream, that is: not where something is waited for."""
    application = Application(short=True)
    application.send(20, count=30)
    sent = application.used
    application.world.run(0.01)
    for _ in range(28):
        application.act(way if way != "send" else "advance")
    assert (sent if way == "send" else application.used - sent) >= 20


# -- as the handles use them ------------------------------------------------------------------------------------------


def met(count: int) -> tuple[Driver, Far, Far]:
    """A reader with so many messages to read, whose first acknowledgement is on its way; as both see the other."""
    net = Net()
    sender, reader = net.node("a"), net.node("b")
    there, here = net.connected(sender, reader)
    there.send_nowait("first")
    with sender.inside as now:
        there.session.send(b"\xa1r", now, raw=True)
        for number in range(2, count):
            assert there.send_nowait(number).sequence == number + 1
    net.run()
    assert here.read_nowait() == "first"
    return reader, there, here


def test_messages_of_one_turn_are_accepted_by_the_short_way() -> None:
    _, there, here = met(5)
    assert there.unacknowledged == 5
    assert [here.read_nowait() for _ in range(4)] == [b"\xa1r", 2, 3, 4]


def test_what_is_too_large_for_the_short_way_keeps_its_place_between_messages_that_are_not() -> None:
    _, there, here = met(4)
    sizes = [9, 5000, 9]
    for size in sizes:
        there.send_nowait(bytes(size))
    there.node.net.run()
    assert [here.read_nowait() for _ in range(3)] == [b"\xa1r", 2, 3]
    assert [len(here.read_nowait()) for _ in sizes] == sizes


def test_after_a_write_a_message_asks_for_the_next_one() -> None:
    """The write comes with the effects, when the core is left: the short way is over then."""
    _, there, here = met(5)
    for number in (5, 6, 7):
        there.send_nowait(number)
        there.node.net.run()
        assert here.unread == number


def test_messages_are_read_by_the_short_way_but_the_last() -> None:
    _, _, here = met(5)
    assert [here.read_plain() for _ in range(3)] == [b"\xa1r", 2, 3]
    assert here.read_plain() is NOTHING
    assert here.unread == 1
    assert here.session.unsettled == COST_PER_MESSAGE + 1
    assert here.read_nowait() == 4
    assert here.read_plain() is NOTHING


def test_what_cannot_be_decoded_is_left_to_the_long_way() -> None:
    reader, _, here = met(4)
    here.read_plain()
    reader.codec = Odd(lambda: None)
    assert here.read_plain() is NOTHING
    assert here.unread == 2
    with pytest.raises(DecodeError, match="odd"):
        here.read_nowait()


def test_what_the_codec_itself_took_is_not_consumed() -> None:
    reader, _, here = met(4)
    here.read_plain()
    taken: list[MessageHandle] = []
    reader.codec = Odd(lambda: taken.append(here.receive_nowait()), fails=False)
    assert here.read_plain() is NOTHING
    assert [message.sequence for message in taken] == [3]
    assert here.session.held == 1
    reader.codec = MsgpackCodec()
    assert taken[0].data == 2
    taken[0].ack()
    assert here.read_nowait() == 3


class Odd(MsgpackCodec):
    """Does something when it should decode, and may fail then."""

    def __init__(self, action: Callable[[], object], *, fails: bool = True) -> None:
        super().__init__()
        self._action = action
        self._fails = fails

    def decode(self, data: bytes | memoryview) -> object:
        self._action()
        if self._fails:
            raise ZeroDivisionError("odd")
        return None


def test_who_drains_has_every_message_told_at_once() -> None:
    reader, there, here = met(5)
    with reader.inside as now:
        here.session.drain(now)
    reader.net.run()
    assert there.unacknowledged == 4
    assert here.read_plain() is NOTHING
    assert here.read_nowait() == b"\xa1r"
    reader.net.run()
    assert there.unacknowledged == 3


def test_while_an_acknowledgement_is_about_to_go_any_number_may_be_settled() -> None:
    reader, there, here = met(200)
    with reader.inside as now:
        here.session.acknowledger.hurry(now)
        assert here.read_plain() == b"\xa1r"
        assert [here.read_plain() for _ in range(190)] == list(range(2, 192))
    reader.net.run()
    assert there.unacknowledged == 200 - 192


@pytest.mark.parametrize("way", ["read", "advance"])
def test_what_is_settled_after_an_acknowledgement_went_along_with_something_else_is_told_too(way: str) -> None:
    """The timer is still set then, and nothing else is pending but this."""
    reader, there, here = met(9)
    iteration = here.iterate()
    if way == "advance":
        assert iteration.step() is not None
    here.send_nowait("takes along what there is to say")
    reader.net.run()
    before = there.unacknowledged
    if way == "read":
        assert here.read_plain() == b"\xa1r"
    else:
        assert iteration.step() is not None
    reader.net.run()
    assert there.unacknowledged == before, "it was to wait for company"
    reader.net.wait(reader.config.ack_delay * 2)
    assert there.unacknowledged == before - 1


def test_what_the_short_way_does_not_take_goes_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    _, there, here = met(3)
    monkeypatch.setattr(Session, "streaming", lambda session: True)
    monkeypatch.setattr(Session, "stream", lambda session, payload, raw: 0)
    assert there.send_nowait("x").sequence == 4
    there.node.net.run()
    assert [here.read_nowait() for _ in range(3)] == [b"\xa1r", 2, "x"]


def test_nothing_is_looked_up_twice_in_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the short ways may do is asked once, until the core is entered again."""
    reader, there, here = met(9)
    with reader.inside:
        pass
    asked: list[str] = []

    def counted(name: str) -> Callable[[Session], object]:
        method = getattr(Session, name)

        def call(session: Session) -> object:
            asked.append(name)
            return method(session)

        return call

    monkeypatch.setattr(Session, "reading", counted("reading"))
    monkeypatch.setattr(Session, "streaming", counted("streaming"))
    assert [here.read_plain() for _ in range(3)] == [b"\xa1r", 2, 3]
    iteration = here.iterate()
    for sequence in (5, 6):
        message = iteration.step()
        assert message is not None
        assert message.sequence == sequence
    assert asked == ["reading"]
    with reader.inside:
        pass
    assert iteration.step() is not None
    assert asked == ["reading"] * 2
    asked.clear()
    with there.node.inside as now:
        there.session.send(b"\x01", now, raw=True)
        for _ in range(3):
            there.send_nowait(1)
    assert asked == ["streaming"]


def test_an_iteration_steps_from_message_to_message() -> None:
    reader, _, here = met(7)
    iteration = here.iterate()
    with reader.inside:
        first = iteration.advance()
    second = iteration.step()
    assert first is not None
    assert second is not None
    assert (first.settled, second.held) == (True, True)
    with pytest.raises(MessageNotHeld):
        first.reject()
    second.release()
    assert iteration.step() is None  # what was released is the next, and not by the short way
    with reader.inside:
        again = iteration.advance()
    assert again is not None
    assert (again.sequence, again.attempt) == (second.sequence, 2)
    assert iteration.step() is None  # nor is that settled by it
    with reader.inside:
        third = iteration.advance()
    assert third is not None
    third.ack()
    fourth = iteration.step()
    assert fourth is not None
    assert [third.sequence, fourth.sequence] == [4, 5]
    assert third.settled
