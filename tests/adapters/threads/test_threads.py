"""Many threads at one node: order, one taker for each message, nothing lost between a look and a wait."""

from __future__ import annotations

import gc
import queue
import threading
from typing import Any

from networkio_threads import Message, MessageIterator, Peer
from tests.adapters.threads.helpers import Crew, connected, node, read_all, send_all, until


def test_32_threads_send_and_32_receive_on_one_session_in_order_per_thread() -> None:
    threads, each = 32, 60
    got: queue.SimpleQueue[tuple[int, int, int]] = queue.SimpleQueue()
    taken: list[list[int]] = []
    with connected(outbox_limit=20_000) as pair, Crew() as crew:

        def send(number: int) -> None:
            for count in range(each):
                pair.near.send([number, count], 20)

        def receive() -> None:
            mine: list[int] = []
            taken.append(mine)
            while True:
                with pair.far.receive(20) as message:
                    if message.data is None:
                        return
                    mine.append(message.sequence)
                    got.put((message.sequence, *message.data))

        for number in range(threads):
            crew.start(send, number)
            crew.start(receive)
        until(lambda: got.qsize() == threads * each, 30)
        for _ in range(threads):
            pair.near.send(None)
        until(lambda: not pair.near.unacknowledged)
    everything = sorted(got.get() for _ in range(threads * each))
    for number in range(threads):
        assert [count for _, sender, count in everything if sender == number] == list(range(each))
    assert all(mine == sorted(mine) for mine in taken)


def test_both_ways_at_once_by_many_threads_and_acknowledged_by_others() -> None:
    each, threads = 200, 4
    with connected() as pair, Crew() as crew:
        for one, other in ((pair.near, pair.far), (pair.far, pair.near)):
            line: queue.Queue[Message | None] = queue.Queue(50)

            def receive(peer: Peer = other, line: queue.Queue[Message | None] = line) -> None:
                for _ in range(each * threads):
                    line.put(peer.receive(20))
                line.put(None)

            def acknowledge(line: queue.Queue[Message | None] = line) -> None:
                while (message := line.get()) is not None:
                    message.ack()

            crew.start(receive)
            crew.start(acknowledge)
            for _ in range(threads):
                crew.start(send_all, one, each)
        until(lambda: pair.near.ledger.read == pair.far.ledger.read == each * threads, 20)


def test_of_many_threads_that_wait_each_message_wakes_one() -> None:
    got: list[int] = []
    with connected() as pair, Crew() as crew:
        for _ in range(20):
            crew.start(lambda: got.append(pair.far.read(10)))
        until(lambda: len(pair.far._waiters) == 20)
        send_all(pair.near, 20)
        until(lambda: len(got) == 20)
    assert sorted(got) == list(range(20))


def test_ping_pong_loses_no_wake_up() -> None:
    """Each side waits most of the time: a wake-up that is lost would take as long as the next timer."""
    with connected(ack_delay=5.0) as pair, Crew() as crew:

        def pong() -> None:
            for _ in range(1500):
                pair.far.send(pair.far.read(5) + 1, 5)

        crew.start(pong)
        for number in range(1500):
            pair.near.send(number, 5)
            assert pair.near.read(5) == number + 1


def test_big_messages_of_many_threads_share_the_wire_with_small_ones() -> None:
    """What the socket does not take at once is left to the node's thread."""
    with connected(window=1 << 20, window_max=1 << 22) as pair, Crew() as crew:

        def send() -> None:
            for _ in range(10):
                pair.near.send(bytes(300_000), 20, raw=True)
                pair.near.send(b"small", 20, raw=True)

        for _ in range(4):
            crew.start(send)
        sizes = [len(pair.far.read(20)) for _ in range(80)]
        assert (sizes.count(300_000), sizes.count(5)) == (40, 40)


def test_what_is_asked_of_the_loop_while_it_works_is_not_lost() -> None:
    """The thread has taken its wake-up call, and has not looked yet, when the next one comes."""
    for what in ("ask", "stop"):
        with node("node") as here:
            working, go_on, done = threading.Event(), threading.Event(), threading.Event()

            def work(working: threading.Event = working, go_on: threading.Event = go_on) -> None:
                working.set()
                go_on.wait(5)

            here.loop.call(work)
            assert working.wait(5)
            if what == "ask":
                here.loop.call(done.set)
            else:
                here.loop.stop()
            go_on.set()
            if what == "ask":
                assert done.wait(5)
            else:
                here.loop.thread.join(5)
                assert not here.loop.thread.is_alive()


def test_nodes_that_open_and_close_in_many_threads() -> None:
    def live(number: int) -> None:
        for turn in range(5):
            with node(f"client-{number}-{turn}") as here:
                here.connect("127.0.0.1", port, "server").send(number).read(10)

    with node("server") as there, Crew() as crew:
        port = there.listen("127.0.0.1", 0).port
        crew.start(there.serve, lambda message: None, workers=2)
        lives = [crew.start(live, number) for number in range(8)]
        for thread in lives:
            thread.join(20)
        assert len(there.peers) == 40
        there.close(0)


def dropped_iteration(peer: Peer, data: Any) -> None:
    """Iterate, and leave the iterator to the garbage collector with a message in its hand."""
    iterator: MessageIterator = iter(peer)
    assert next(iterator).data == data
    cycle: list[Any] = [iterator]
    cycle.append(cycle)


def test_an_iterator_that_is_collected_in_the_middle_of_a_command_gives_its_message_back() -> None:
    with connected() as pair:
        gc.disable()
        try:
            pair.near.send("x")
            dropped_iteration(pair.far, "x")
            with pair.server.inside:  # the lock is taken
                gc.collect()
            with pair.far.receive(5) as message:
                assert (message.data, message.attempt) == ("x", 2)
            pair.near.send("y")
            dropped_iteration(pair.far, "y")
            seen = threading.Event()

            def collect() -> None:
                gc.collect()
                seen.set()

            pair.server.loop.call(collect)  # in the node's own thread, which nobody else will wake
            assert seen.wait(5)
            until(lambda: pair.far.unread == 1, 5)
        finally:
            gc.enable()
        assert read_all(pair.far, 1) == ["y"]


def test_a_finalizer_that_calls_the_node_in_the_middle_of_a_command_is_told() -> None:
    told: list[str] = []
    with connected() as pair:

        class Talkative:
            def __del__(self) -> None:
                try:
                    pair.near.send_nowait("last words")
                except RuntimeError as error:
                    told.append(str(error))

        with pair.client.inside:
            Talkative()
        assert "in the middle of another call" in told[0]
        Talkative()
        assert pair.far.read(5) == "last words"
