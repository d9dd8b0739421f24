"""Ctrl-C: it comes out as KeyboardInterrupt, once, and takes nothing with it."""

from __future__ import annotations

import _thread
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, cycle, islice, repeat
from math import inf
from pathlib import Path
from typing import Any

import pytest

from networkio_threads import WrongThread
from networkio_threads._wait import Interrupts
from tests.adapters.threads.helpers import Crew, Pair, connected, node, until
from tests.docs.blocks import ROOT, blocks_of


@contextmanager
def handled(handle: Callable[[int, Any], object] | signal.Handlers, number: int = signal.SIGUSR1) -> Iterator[None]:
    """The program has a handler of its own for this signal."""
    before = signal.signal(number, handle)
    try:
        yield
    finally:
        signal.signal(number, before)


def strike_in(
    monkeypatch: pytest.MonkeyPatch, cls: type, name: str, number: signal.Signals = signal.SIGINT
) -> None:
    """The next call of this method is struck by Ctrl-C (or another signal) in the middle of the core."""
    real = getattr(cls, name)

    def strike(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(cls, name, real)
        signal.raise_signal(number)
        return real(*args, **options)

    monkeypatch.setattr(cls, name, strike)


def call_and_go_on(call: Callable[[], Any], results: list[Any]) -> None:
    results.append(call())
    time.sleep(5)


@pytest.mark.parametrize("way", ["read", "read_nowait", "receive", "receive_nowait", "read_many"])
def test_a_result_that_is_there_is_not_lost(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    results: list[Any] = []
    with connected() as pair:
        pair.far.send("x")
        until(lambda: pair.near.unread)
        strike_in(monkeypatch, type(pair.near.session), "take_one")
        with pytest.raises(KeyboardInterrupt):
            call_and_go_on(getattr(pair.near, way), results)
        assert len(results) == 1
        data = results[0].data if way.startswith("receive") else results[0]
        assert data == (["x"] if way == "read_many" else "x")
        assert pair.near.unread == 0


def test_a_signal_that_is_passed_on_as_ctrl_c_is_held_back_like_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the page on the packages says it."""
    (recipe,) = (block for block in blocks_of(ROOT / "docs" / "reference/packages.md") if "SIGTERM" in block.code)
    results: list[Any] = []
    with connected() as pair, handled(signal.SIG_IGN, signal.SIGTERM):
        exec(recipe.code, {})
        pair.far.send("x")
        until(lambda: pair.near.unread)
        strike_in(monkeypatch, type(pair.near.session), "take_one", signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            call_and_go_on(pair.near.read_nowait, results)
        assert results == ["x"]


#: what is called has no call into C on its way back, for after one the program may be struck at any rate
RESULTS: dict[str, Callable[[Pair], Callable[[], Any]]] = {
    "read": lambda pair: pair.near.read,
    "read_nowait": lambda pair: pair.near.read_nowait,
    "receive": lambda pair: pair.near.receive,
    "receive_nowait": lambda pair: pair.near.receive_nowait,
    "read_many": lambda pair: pair.near.read_many,
    "iteration": lambda pair: iter(pair.near).__next__,
    "next_notice": lambda pair: pair.client.next_notice,
    "send": lambda pair: lambda: pair.near.send("y"),
    "send_many": lambda pair: lambda: pair.near.send_many("y"),
    "send_nowait": lambda pair: lambda: pair.near.send_nowait("y"),
    "broadcast": lambda pair: lambda: pair.client.broadcast("y"),
    "cancel": lambda pair: pair.near.send("y").cancel,
}


def _arrived(pair: Pair, before: int) -> bool:
    """Is there more to read than before, and so a notice of it?"""
    return pair.near.unread > before


@pytest.mark.parametrize("way", RESULTS)
def test_no_result_is_lost_on_the_way_out(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Ctrl-C strikes between the last look at what was held back and the caller, out of C: at no instruction."""
    struck = 0
    with connected() as pair:
        call = RESULTS[way](pair)
        for leaving in islice(cycle(range(4)), 80):  # so many things were left before, one in the other; it varies
            results: list[Any] = []
            arrived = partial(_arrived, pair, pair.near.unread)  # not every way reads
            pair.far.send("x")
            until(arrived)
            looks = chain(repeat(False, leaving), map(_thread.interrupt_main, [signal.SIGINT]), repeat(False))
            pending = property(partial(next, looks), lambda self, value: None)
            try:
                monkeypatch.setattr(Interrupts, "_pending", pending, raising=False)
                results.append(call())
                time.sleep(0)  # here at the latest it comes out
            except KeyboardInterrupt:
                struck += 1
            finally:
                monkeypatch.undo()
            assert len(results) == 1
            if struck and leaving == 3:
                break
    assert struck


def test_it_strikes_a_call_that_waits_and_the_wait_leaves_nothing() -> None:
    with connected() as pair, Crew() as crew:

        def strike() -> None:
            until(lambda: pair.near._waiters)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        for _ in range(5):
            crew.start(strike)
            with pytest.raises(KeyboardInterrupt):
                pair.near.receive(10)
            assert not pair.near._waiters
        pair.far.send("x")
        assert pair.near.read(5) == "x"


def test_one_that_comes_while_a_wait_is_given_up_comes_out_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second Ctrl-C strikes while the first one's call takes back what it had registered."""
    with connected() as pair, Crew() as crew:

        def strike() -> None:
            until(lambda: pair.near._waiters)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        crew.start(strike)
        entered: list[int] = []
        real = pair.client.enter

        def enter() -> float:
            now = real()
            entered.append(1)
            if len(entered) == 3 and threading.current_thread() is threading.main_thread():
                signal.raise_signal(signal.SIGINT)
            return now

        monkeypatch.setattr(pair.client, "enter", enter)
        monkeypatch.setattr(pair.client, "tick", lambda: None)
        monkeypatch.setattr(pair.client, "due", lambda: inf)

        def receive_and_go_on() -> None:
            with pytest.raises(KeyboardInterrupt):
                pair.near.receive(10)
            assert not pair.near._waiters
            time.sleep(5)

        with pytest.raises(KeyboardInterrupt):
            receive_and_go_on()
        monkeypatch.undo()


def test_a_node_of_another_thread_is_as_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the main thread can set handlers: it does so when it first enters."""
    opened: list[Pair] = []
    release = threading.Event()

    def run() -> None:
        with connected() as pair:
            opened.append(pair)
            release.wait(10)

    with Crew() as crew:
        crew.start(run)
        until(lambda: opened)
        pair = opened[0]
        results: list[Any] = []
        pair.far.send("x")
        until(lambda: pair.near.unread)
        strike_in(monkeypatch, type(pair.near.session), "take_one")
        with pytest.raises(KeyboardInterrupt):
            call_and_go_on(pair.near.read, results)
        assert results == ["x"]
        release.set()
    with node("last"):  # so that it is the main thread that closes the last one, and puts Ctrl-C's handler back
        pass


def test_a_handler_of_the_programs_own_is_left_alone() -> None:
    struck: list[int] = []
    with handled(lambda number, frame: struck.append(number), signal.SIGINT), connected():
        signal.raise_signal(signal.SIGINT)
    assert struck == [signal.SIGINT]


class StruckLock:
    """A lock whose owner is struck by a signal right behind the taking and right before the giving back."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock

    def acquire(self) -> None:
        self._lock.acquire()
        signal.raise_signal(signal.SIGUSR1)

    def release(self) -> None:
        signal.raise_signal(signal.SIGUSR1)
        self._lock.release()


def test_a_signal_handler_that_calls_the_node_at_the_edge_of_a_command_is_told_and_does_not_hang() -> None:
    told: list[str] = []
    with connected() as pair:

        def handle(number: int, frame: Any) -> None:
            try:
                pair.near.send_nowait("from the handler")
            except WrongThread as error:
                told.append(str(error))

        lock, pair.client._lock = pair.client._lock, StruckLock(pair.client._lock)  # type: ignore[assignment]
        try:
            with handled(handle), pair.client.inside:
                pass
        finally:
            pair.client._lock = lock
        assert len(told) == 2
        assert all("in the middle of another call" in text for text in told)


def test_it_strikes_a_call_that_went_on_waiting_behind_another_handlers_call() -> None:
    """A handler of the program's own waits at the node in the middle of a call that waits."""
    with connected() as pair, Crew() as crew:
        waited: list[str] = []

        def handle(number: int, frame: Any) -> None:
            with pytest.raises(TimeoutError):
                pair.near.receive(0.01)
            waited.append("here")

        def strike() -> None:
            main = threading.main_thread().ident or 0
            until(lambda: pair.near._waiters)
            signal.pthread_kill(main, signal.SIGUSR1)
            until(lambda: waited and len(pair.near._waiters) == 1)
            signal.pthread_kill(main, signal.SIGINT)

        with handled(handle):
            crew.start(strike)
            with pytest.raises(KeyboardInterrupt):
                pair.near.receive(5)


def test_it_does_not_strike_a_command_of_a_handler_that_came_in_the_middle_of_a_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with connected() as pair, Crew() as crew:

        def handle(number: int, frame: Any) -> None:
            strike_in(monkeypatch, type(pair.near.session), "send")
            pair.near.send_nowait("whole")

        def strike() -> None:
            until(lambda: pair.near._waiters)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

        with handled(handle):
            crew.start(strike)
            with pytest.raises(KeyboardInterrupt):
                pair.near.receive(5)
        assert pair.far.read(5) == "whole"
        assert pair.near.ledger.accepted == 1


def test_closing_can_be_interrupted_and_closes_at_once() -> None:
    with connected() as pair, Crew() as crew:
        pair.near.send("never read")

        def strike() -> None:
            until(lambda: pair.near._waiters)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        crew.start(strike)
        with pytest.raises(KeyboardInterrupt):
            pair.client.close(60)
        assert pair.client.closed
        assert not pair.client.loop.thread.is_alive()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["send", "read", "read_nowait", "receive", "serve", "drain"])
def test_struck_again_and_again_at_random_moments_under_load(way: str) -> None:
    draw = random.Random(way)
    program = Path(__file__).with_name("struck.py")
    with subprocess.Popen(
        [sys.executable, "-W", "error", str(program), way], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        strikes = 0
        try:
            assert child.stdout.read(1) == b"+"
            while True:
                time.sleep(draw.random() * 0.001)
                child.send_signal(signal.SIGINT)
                answer = child.stdout.read(1)  # the next one only when this one has come out
                if answer != b"!":
                    break
                strikes += 1
            assert answer == b"\n", child.stderr.read().decode()
            assert child.stdout.read() == b"fine\n"
        finally:
            child.kill()
        assert strikes > 2


def test_a_ctrl_c_that_does_not_wake_the_waiting_thread_comes_out_all_the_same() -> None:
    """The system may run the handler's first half in another thread, or right before the main thread blocks."""
    with connected() as pair:

        def elsewhere() -> None:
            time.sleep(0.1)  # the main thread waits by then, and if not, it is no worse
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            pair.near.receive()
        thread.join()
        pair.far.send("still there", timeout=5)
        assert pair.near.read(timeout=5) == "still there"
