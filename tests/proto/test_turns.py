"""A few workers serve many peers: each peer in order and one message at a time, nobody before all others."""

from __future__ import annotations

from typing import Any

import pytest

from networkio_proto import NoMessage
from networkio_proto.handles import MessageHandle
from networkio_proto.turns import Turns
from tests.proto.helpers import Waiting
from tests.proto.helpers_node import Driver, Net


class Served:
    """A hub whose messages go to workers, and those who send to it."""

    def __init__(self, *names: str) -> None:
        self.net = Net()
        self.hub = self.net.node("hub")
        self.senders: dict[str, Driver] = {}
        for name in names:
            self.senders[name] = self.net.node(name)
            self.net.connected(self.senders[name], self.hub)
        self.turns = self.serve()

    def serve(self) -> Turns:
        """Begin to serve, or begin anew."""
        turns = Turns(self.hub, self.hub.turns)
        with self.hub.inside:
            self.hub.begin_serving(turns.may_have, turns)
        return turns

    def say(self, name: str, *things: object) -> None:
        """Let messages come, together."""
        for thing in things:
            self.senders[name].peer("hub").send_nowait(thing)
        self.net.run()

    def ask(self) -> Waiting[Any]:
        """A worker wants its next message."""
        return Waiting(self.hub, self.turns.next())

    def finish(self, message: MessageHandle) -> None:
        """A worker has handled it."""
        message.ack()
        with self.hub.inside:
            self.turns.finished(message.peer)

    def handle_all(self) -> list[object]:
        """One worker handles what is there; the data in its order."""
        handled = []
        while (worker := self.ask()).over:
            handled.append(worker.result.data)
            self.finish(worker.result)
        worker.cancel()
        return handled


def test_a_peers_messages_are_handled_in_order_and_one_at_a_time() -> None:
    served = Served("a")
    served.say("a", 1, 2, 3)
    first, second = served.ask(), served.ask()
    assert first.result.data == 1
    assert not second.over
    served.say("a", 4)  # what comes while it is busy wakes nobody
    assert not second.look().over
    served.finish(first.result)
    assert second.look().result.data == 2
    third = served.ask()
    assert not third.over
    served.finish(second.result)
    assert third.look().result.data == 3
    served.finish(third.result)
    assert served.handle_all() == [4]


def test_different_peers_are_handled_at_the_same_time() -> None:
    served = Served("a", "b")
    served.say("a", "a1", "a2")
    served.say("b", "b1", "b2")
    assert [served.ask().result.data for _ in range(2)] == ["a1", "b1"]
    assert not served.ask().over


def test_a_peer_goes_behind_all_others_when_its_turn_is_over() -> None:
    served = Served("a", "b", "c")
    served.say("a", "a1", "a2", "a3")
    served.say("b", "b1", "b2")
    served.say("c", "c1")
    assert served.handle_all() == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_whoever_becomes_free_later_goes_behind_those_who_wait() -> None:
    served = Served("a", "b")
    served.say("a", "a1", "a2")
    first = served.ask().result
    served.say("b", "b1")
    served.finish(first)
    assert served.handle_all() == ["b1", "a2"]


def test_a_message_wakes_the_worker_that_waits_longest_and_no_other() -> None:
    served = Served("a", "b")
    workers = [served.ask() for _ in range(3)]
    assert [worker.woken for worker in workers] == [False, False, False]
    served.say("a", "a1")
    assert [worker.woken for worker in workers] == [True, False, False]
    assert workers[0].look().result.data == "a1"
    served.say("b", "b1", "b2")
    assert [worker.woken for worker in workers[1:]] == [True, False]
    assert workers[1].look().result.data == "b1"
    served.finish(workers[1].result)
    assert workers[2].look().result.data == "b2"


def test_a_peer_that_is_told_of_twice_still_has_one_worker() -> None:
    served = Served("a")
    served.say("a", 1, 2)
    for _ in range(2):
        served.turns.may_have(served.hub.peer("a"))
    assert served.ask().result.data == 1
    served.turns.may_have(served.hub.peer("a"))
    assert not served.ask().over


def test_a_peer_without_a_message_is_passed_over_and_comes_back_with_its_next() -> None:
    served = Served("a", "b")
    served.say("a", "taken")
    served.say("b", "b1")
    assert served.hub.peer("a").read_nowait() == "taken"  # by somebody else
    worker = served.ask()
    assert worker.result.data == "b1"
    served.say("a", "a1", "a2")
    served.finish(worker.result)
    assert served.handle_all() == ["a1", "a2"]
    served.say("a", "a3")
    assert served.handle_all() == ["a3"]


def test_a_worker_that_finds_nothing_where_it_was_woken_waits_on() -> None:
    served = Served("a")
    worker = served.ask()
    served.say("a", "taken")
    assert served.hub.peer("a").read_nowait() == "taken"
    assert not worker.look().over
    served.say("a", "a1")
    assert worker.look().result.data == "a1"


def test_a_message_that_is_released_comes_again_before_the_next() -> None:
    served = Served("a")
    served.say("a", 1, 2)
    message = served.ask().result
    message.release()
    with served.hub.inside:
        served.turns.finished(message.peer)
    again = served.ask().result
    assert (again.data, again.attempt) == (1, 2)


def test_who_comes_while_others_are_served_is_served_too() -> None:
    served = Served()
    worker = served.ask()
    newcomer = served.senders["new"] = served.net.node("new")
    newcomer.peer("hub").send_nowait("hello")
    served.net.connected(newcomer, served.hub)
    assert worker.look().result.data == "hello"


def test_after_a_peers_end_what_it_sent_is_handled_and_the_others_are_not_held_up() -> None:
    served = Served("a", "b")
    served.say("a", "a1", "a2")
    served.senders["a"].peer("hub").end()
    served.net.run()
    served.say("b", "b1")
    assert served.handle_all() == ["a1", "b1", "a2"]


# -- cancelling -------------------------------------------------------------------------------------------------------


def test_a_wait_for_a_turn_that_is_cancelled_leaves_nobody_waiting() -> None:
    served = Served("a")
    gone, stays = served.ask(), served.ask()
    gone.cancel()
    assert served.turns._idle == [stays.flag]
    served.say("a", 1)
    assert not gone.woken
    assert stays.look().result.data == 1
    assert served.turns._idle == []


def test_a_worker_that_is_cancelled_when_it_was_woken_leaves_the_message_to_the_next() -> None:
    served = Served("a")
    gone, stays = served.ask(), served.ask()
    served.say("a", 1)
    assert (gone.woken, stays.woken) == (True, False)
    gone.cancel()
    assert stays.look().result.data == 1
    alone = served.ask()
    served.finish(stays.result)
    served.say("a", 2)
    alone.cancel()
    assert served.ask().result.data == 2


# -- the end ----------------------------------------------------------------------------------------------------------


def test_the_end_of_serving_is_told_to_every_worker_that_waits_or_asks() -> None:
    served = Served("a")
    workers = [served.ask() for _ in range(3)]
    served.hub.end_serving()
    assert served.turns.over
    assert [worker.look().result for worker in workers] == [None, None, None]
    served.say("a", 1)
    assert served.ask().result is None
    assert served.hub.peer("a").read_nowait() == 1  # it stays where it was


def test_the_end_of_the_node_ends_serving() -> None:
    served = Served("a")
    served.say("a", 1)
    busy, waiting = served.ask(), served.ask()
    assert busy.result.data == 1
    served.hub.close()
    assert served.turns.over
    assert waiting.look().result is None
    late = Turns(served.hub)
    late.may_have(served.hub.peer("a"))
    assert Waiting(served.hub, late.next()).result is None


def test_a_handler_of_the_last_time_is_still_busy_when_serving_begins_anew() -> None:
    served = Served("a", "b")
    served.say("a", "a1", "a2")
    old = served.ask()
    assert old.result.data == "a1"
    served.hub.end_serving()
    served.turns = served.serve()
    worker = served.ask()
    assert not worker.over
    served.say("b", "b1")
    assert worker.look().result.data == "b1"
    waiting = served.ask()
    assert not waiting.over
    served.finish(old.result)  # in the turns of now
    assert waiting.look().result.data == "a2"
    served.finish(worker.result)
    served.finish(waiting.result)
    with pytest.raises(NoMessage):
        served.hub.peer("a").read_nowait()
