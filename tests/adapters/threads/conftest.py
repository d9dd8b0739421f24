"""Every test of networkio_threads is bounded in time and leaves nothing: no thread, descriptor, handler, or warning."""

from __future__ import annotations

import gc
import logging
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import pytest

from networkio_threads._wait import INTERRUPTS
from tests.adapters.conftest import descriptors

#: seconds for one test that is not marked slow
_LIMIT = 30


@pytest.fixture
def anyio_backend() -> str:
    """There is no event loop here."""
    return "asyncio"


@pytest.fixture(autouse=True)
def limited(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that hangs is a test that failed."""

    def strike(signum: int, frame: FrameType | None) -> None:
        raise AssertionError("the test took too long")

    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, _LIMIT * (4 if request.node.get_closest_marker("slow") else 1))
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[str]]:
    """Errors that the library logged; a test that expects some clears the list."""
    lines: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = logging.getLogger("networkio.threads"), Collect(logging.ERROR)
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)
    assert lines == []


@pytest.fixture(autouse=True)
def nothing_leaks(limited: None, logged: list[str]) -> Iterator[None]:
    """Threads and descriptors are those of before, and Ctrl-C is handled as before."""
    threads, before = set(threading.enumerate()), descriptors()
    INTERRUPTS.restore()  # a node that was closed outside of the main thread, in a test elsewhere, cannot do it
    handler = signal.getsignal(signal.SIGINT)
    yield
    gc.collect()
    for _ in range(1000):
        started = set(threading.enumerate()) - threads
        opened = {name: what for name, what in descriptors().items() if before.get(name) != what}
        if not started and not opened:
            break
        time.sleep(0.002)
    else:
        pytest.fail(f"threads left behind: {started}; open descriptors: {opened}")
    assert signal.getsignal(signal.SIGINT) is handler
