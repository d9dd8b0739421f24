"""Ctrl-C: it comes out as KeyboardInterrupt, once, and takes nothing with it."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.threads.helpers import Crew, Pair, connected, node, until


def strike_in(monkeypatch: pytest.MonkeyPatch, cls: type, name: str) -> None:
    """The next call of this method is struck by Ctrl-C in the middle of the core."""
    real = getattr(cls, name)

    def strike(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(cls, name, real)
        signal.raise_signal(signal.SIGINT)
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
        strike_in(monkeypatch, type(pair.near.session), "take")
        with pytest.raises(KeyboardInterrupt):
            call_and_go_on(getattr(pair.near, way), results)
        assert len(results) == 1
        data = results[0].data if way.startswith("receive") else results[0]
        assert data == (["x"] if way == "read_many" else "x")
        assert pair.near.unread == 0


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
            if len(entered) == 2 and threading.current_thread() is threading.main_thread():
                signal.raise_signal(signal.SIGINT)
            return now

        monkeypatch.setattr(pair.client, "enter", enter)
        monkeypatch.setattr(pair.client, "tick", lambda: None)
        monkeypatch.setattr(pair.client, "due", lambda: None)

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
        strike_in(monkeypatch, type(pair.near.session), "take")
        with pytest.raises(KeyboardInterrupt):
            call_and_go_on(pair.near.read, results)
        assert results == ["x"]
        release.set()
    with node("last"):  # so that it is the main thread that closes the last one, and puts Ctrl-C's handler back
        pass


def test_a_handler_of_the_programs_own_is_left_alone() -> None:
    struck: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: struck.append(number))
    try:
        with connected():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert struck == [signal.SIGINT]


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
                time.sleep(draw.random() * 0.004)
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
