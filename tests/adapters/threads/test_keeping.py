"""A node for threads with a journal that fails while it opens, is closed twice, or is called from where it must not."""

from __future__ import annotations

import errno
import logging
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from networkio_journal import SQLiteJournal
from networkio_threads import ConfigurationError, JournalError, JournalFull, Node, Outcome, WrongThread, _node
from networkio_threads._loop import Loop
from networkio_threads._wait import INTERRUPTS
from tests.adapters.helpers import HASTY
from tests.adapters.shelf import Shelf
from tests.adapters.threads.helpers import until


def keeping(peer_id: str, journal: Any) -> Node:
    return Node(peer_id, config=replace(HASTY, drain_timeout=0.5), journal=journal)


@pytest.mark.parametrize("how", ["no descriptor", "no thread"])
def test_a_node_that_cannot_start_gives_its_journal_back(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unable(Loop):
        def __init__(self, node: Node) -> None:
            if how == "no descriptor":
                raise OSError(errno.EMFILE, "too many open files")
            super().__init__(node)
            self.thread.start = self.fail  # type: ignore[method-assign]

        def fail(self) -> None:
            raise RuntimeError("can't start new thread")

    path = str(tmp_path / "journal.db")
    journal = SQLiteJournal(path)
    monkeypatch.setattr(_node, "Loop", Unable)
    try:
        with pytest.raises((OSError, RuntimeError)), keeping("a", journal):
            pass
        monkeypatch.undo()
        with keeping("a", path):
            pass
    finally:
        journal.close()


def test_a_handler_of_the_log_that_sends_does_not_hold_up_the_disk(
    caplog: pytest.LogCaptureFixture, logged: list[str]
) -> None:
    caplog.set_level("INFO", "networkio.threads")
    told: list[BaseException | None] = []

    class Sending(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "written again" in record.getMessage():
                try:
                    node.peer("log").send(record.getMessage(), 1.0)  # without the timeout it waits for ever
                    told.append(None)
                except BaseException as error:
                    told.append(error)

    shelf, handler = Shelf(), Sending()
    logging.getLogger("networkio.threads").addHandler(handler)
    try:
        with keeping("a", shelf) as node:
            shelf.error = JournalFull("no room")
            with pytest.raises(JournalFull):
                node.peer("b").send(1)
            shelf.error = None
            until(lambda: node.keeper is not None and node.keeper.error is None)
            node.peer("b").send(2)
            until(lambda: told)
    finally:
        logging.getLogger("networkio.threads").removeHandler(handler)
    logged.clear()
    assert told[0] is None or isinstance(told[0], WrongThread)


def test_whoever_is_not_the_first_to_close_waits_for_the_journal_too() -> None:
    class Slow(Shelf):
        def __init__(self) -> None:
            super().__init__()
            self.closing, self.may_close, self.closed = threading.Event(), threading.Event(), False

        def close(self) -> None:
            self.closing.set()
            self.may_close.wait(5)
            super().close()
            self.closed = True

    store = Slow()
    node = keeping("a", store)
    node.__enter__()
    first = threading.Thread(target=node.close, args=(0,))
    first.start()
    assert store.closing.wait(5)
    threading.Timer(0.5, store.may_close.set).start()
    node.close(0)
    closed = store.closed
    first.join()
    INTERRUPTS.restore()  # the last to close was another thread than the main one
    assert closed


def test_no_name_is_no_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises((ConfigurationError, JournalError)), keeping("a", ""):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["here"]  # and not here.lock


def test_cancel_returns_when_that_is_on_disk_and_may_be_given_up() -> None:
    shelf = Shelf()
    with keeping("a", shelf) as node:
        receipt = node.peer("b").send("never mind")
        shelf.going.clear()
        with pytest.raises(TimeoutError):
            receipt.cancel(timeout=0.05)
        shelf.going.set()
        assert not receipt.cancel()
    with keeping("a", shelf) as again:
        assert again.receipt(receipt.id).outcome is Outcome.CANCELLED
