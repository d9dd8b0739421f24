"""``--journal``: what goes on exactly where it was, and what is no place to go on at."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from networkio_command import _listen
from networkio_command._bridge import Peer
from networkio_command._input import Chunks, Documents, Lines, Source
from networkio_command._listen import Listening
from networkio_command._marks import Mark, Place
from networkio_command._output import Output
from networkio_command._terminal import CommandError, Interrupts, StatusLine
from networkio_proto import JournalFull
from tests.command.helpers import listening, readers_joined, run, running

# -- marks ------------------------------------------------------------------------------------------------------------


@contextmanager
def opened(path: Path, data: bytes) -> Iterator[int]:
    path.write_bytes(data)
    descriptor = os.open(path, os.O_RDONLY)
    with readers_joined():
        yield descriptor
    os.close(descriptor)


def batch(source: Source) -> list[Any]:
    while not source.ended:
        if messages := source.next(20):
            return messages
    raise AssertionError("there is nothing")


@pytest.mark.parametrize(
    ("make", "data", "ends"),
    [
        (Lines, b"a\n\r\n\xff\nlast", [0, 2, 4, 6]),
        (Documents, b'1\n["\xc3\xbc"]\n"\\n"\nNaN\n5', [0, 2, 9, 14]),
        (lambda descriptor: Chunks(descriptor, 5), b"12345", [0, 5]),
    ],
)
def test_source_knows_where_each_message_of_a_batch_ends(
    make: Callable[[int], Source], data: bytes, ends: list[int], tmp_path: Path
) -> None:
    with opened(tmp_path / "in", data) as descriptor:
        source = make(descriptor)
        messages = batch(source)
        assert [source.mark(count) for count in range(len(messages) + 1)] == [Mark(end, data[:end]) for end in ends]


def test_mark_of_the_last_line_is_the_end_though_it_has_no_line_feed(tmp_path: Path) -> None:
    with opened(tmp_path / "in", b"one\ntwo") as descriptor:
        source = Lines(descriptor)
        assert batch(source) == ["one"]
        assert batch(source) == ["two"]
        assert source.mark(1) == Mark(7, b"one\ntwo")


def test_source_begins_at_its_mark_and_counts_from_there(tmp_path: Path) -> None:
    data = b"".join(b"%d\n" % number for number in range(3000))
    with opened(tmp_path / "in", data) as descriptor:
        mark = Mark.at(descriptor, 6890)
        assert mark == Mark(6890, data[6890 - 4096 : 6890])
        source = Lines(descriptor, mark)
        messages = batch(source)
        assert messages[0] == "1600"
        assert source.mark(2) == Mark(6900, data[6900 - 4096 : 6900])
        assert source.position == len(data)


@pytest.mark.parametrize(
    ("now", "complaint"),
    [
        (b"0123456789", None),
        (b"0123456789 and more", None),
        (b"012345678", "in is not the file that the journal knows: it had 10 bytes, and this one is shorter"),
        (b"", "this one is shorter"),
        (b"x123456789 and more", "this one has other bytes before that"),
    ],
)
def test_another_file_is_no_place_to_go_on_at(now: bytes, complaint: str | None, tmp_path: Path) -> None:
    kept = (10, Mark(10, b"0123456789").digest)
    with opened(tmp_path / "in", now) as descriptor:
        place = Place("input", str(tmp_path / "in"), "peer")
        if complaint is None:
            assert place.find(descriptor, kept) == Mark(10, b"0123456789")
        else:
            with pytest.raises(CommandError, match=complaint):
                place.find(descriptor, kept)


# -- listen, without a network ----------------------------------------------------------------------------------------


class Journal:
    """A peer whose commits end as it is told, and what happens in their order."""

    id = "sender"

    def __init__(self, lines: Sequence[str], ends: Sequence[Exception | None], happened: list[str]) -> None:
        self._messages = [SimpleNamespace(data=line, headers={}, raw=line, sequence=1) for line in lines]
        self._ends = list(ends)
        self._happened = happened

    def receive_some(self, _limit: int, _size: int) -> list[Any]:
        messages, self._messages = self._messages, []
        return messages

    def commit(
        self, messages: Sequence[Any], _rejected: Mapping[int, str], note: Callable[[Any], None]
    ) -> Future[None]:
        future: Future[None] = Future()
        note(SimpleNamespace(execute=lambda _text, row: self._happened.append(f"mark {row[3]}")))
        end = self._ends.pop(0)
        if end is None:
            self._happened.append(f"{len(messages)} acknowledged")
            future.set_result(None)
        else:
            future.set_exception(end)
        return future


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Writes and syncs of files, in their order."""
    events: list[str] = []
    write, sync = os.write, os.fsync

    def writes(descriptor: int, data: bytes) -> int:
        events.append("write")
        return write(descriptor, data)

    def syncs(descriptor: int) -> None:
        sync(descriptor)
        events.append("sync")

    monkeypatch.setattr(os, "write", writes)
    monkeypatch.setattr(os, "fsync", syncs)
    monkeypatch.setattr(_listen, "_RETRY", 0.001)
    return events


def listened(path: Path, peer: Journal, happened: list[str], kept: tuple[int, bytes] | None = None) -> Output:
    place = Place("output", str(path))
    output = Output(str(path), lines=False)
    output.resume(place, kept)
    happened.clear()
    with Interrupts() as interrupts:
        status = StatusLine(hidden=True)
        assert Listening("text", output, place, interrupts, status).take(cast(Peer, peer))
    output.close()
    return output


def test_output_is_synced_before_its_mark_is_committed_with_the_acknowledgements(
    tmp_path: Path, happened: list[str]
) -> None:
    listened(tmp_path / "out", Journal(["one", "two"], [None], happened), happened)
    assert happened == ["write", "sync", "mark 8", "2 acknowledged"]
    assert (tmp_path / "out").read_bytes() == b"one\ntwo\n"


def test_full_disk_holds_the_acknowledgement_up_and_the_lines_are_written_once(
    tmp_path: Path, happened: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    full = JournalFull("the journal has no room")
    listened(tmp_path / "out", Journal(["one"], [full, full, None], happened), happened)
    assert happened == ["write", "sync", "mark 4", "mark 4", "mark 4", "1 acknowledged"]
    assert (tmp_path / "out").read_bytes() == b"one\n"
    told = "networkio: nothing is acknowledged until there is room: the journal has no room\n"
    assert capsys.readouterr().err == told


def test_what_is_behind_the_mark_is_cut_off_however_whole_it_looks(tmp_path: Path, happened: list[str]) -> None:
    (tmp_path / "out").write_bytes(b"one\ntwo\nthr")
    kept = (4, Mark(4, b"one\n").digest)
    output = listened(tmp_path / "out", Journal(["two"], [None], happened), happened, kept)
    assert output.cut == 7
    assert happened == ["write", "sync", "mark 8", "1 acknowledged"]
    assert (tmp_path / "out").read_bytes() == b"one\ntwo\n"


# -- the commands -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_second_process_goes_on_where_the_first_was(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    common = ("--adapter", "threads", "--journal")
    source.write_bytes(b"one\n\xff\n")
    with listening("--output", target, *common, tmp_path / "in.db") as (listener, port):
        send = ("send", port, "--id", "sender", *common, tmp_path / "out.db", source)
        assert run(*send).returncode == 0
        with open(source, "ab") as file:
            file.write(b"three\n")
        result = run(*send)
        told = f"networkio: {source} goes on behind its first 6 bytes\n"
        assert (result.returncode, result.stderr.decode()) == (0, told)
        assert target.read_bytes() == source.read_bytes()
        assert run(*send).returncode == 0
        source.write_bytes(b"another file altogether\n")
        result = run(*send)
        assert (result.returncode, b"is not the file that the journal knows" in result.stderr) == (1, True)
        listener.interrupt()
    target.write_bytes(b"one\n\xff\nthree\nfour, not acknowl")
    with listening("--output", target, *common, tmp_path / "in.db") as (listener, _):
        told = listener.interrupt()
    assert f"cut 17 bytes that were not acknowledged off the end of {target}" in told
    assert target.read_bytes() == b"one\n\xff\nthree\n"
    target.write_bytes(b"one\n")
    result = run("listen", 0, "--id", "listener", "--output", target, *common, tmp_path / "in.db")
    assert (result.returncode, b"this one is shorter" in result.stderr) == (1, True)


def test_json_that_no_message_can_carry_leaves_what_stood_before_it_sent(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b'1\n["\\ud800"]\n3\n')
    with listening("--output", tmp_path / "out", "--journal", tmp_path / "in.db") as (_, port):
        send = ("send", port, "--id", "sender", "--json", "--journal", tmp_path / "out.db", tmp_path / "in")
        result = run(*send)
        assert (result.returncode, b"line 2 cannot be sent: " in result.stderr) == (1, True)
        assert (tmp_path / "out").read_bytes() == b"1\n"
        result = run(*send)
        assert (result.returncode, b"goes on behind its first 2 bytes" in result.stderr) == (1, True)
        assert (tmp_path / "out").read_bytes() == b"1\n"


def test_rejected_messages_and_a_pipe_go_with_a_journal(tmp_path: Path) -> None:
    with listening("--json", "--output", tmp_path / "out", "--journal", tmp_path / "in.db") as (_, port):
        send = ("send", port, "--id", "sender", "--journal", tmp_path / "out.db")
        result = run(*send, data=b"one\n\xff\ntwo\n")
        assert (result.returncode, b"message 2 was rejected" in result.stderr) == (1, True)
        assert run(*send, data=b"one\n").returncode == 0
    assert (tmp_path / "out").read_bytes() == b'"one"\n"two"\n"one"\n'


def test_journal_that_another_process_has_is_told(tmp_path: Path) -> None:
    with listening("--journal", tmp_path / "in.db") as (listener, _):
        result = run("listen", 0, "--id", "listener", "--journal", tmp_path / "in.db")
    assert result.returncode == 1
    assert f"is in use by the process {listener.process.pid}" in result.stderr.decode()


@pytest.mark.slow
def test_what_was_said_in_a_chat_is_there_in_the_next(tmp_path: Path) -> None:
    alice = ("chat", 0, "--id", "alice", "--to", "bob", "--journal", tmp_path / "alice.db")
    with running(*alice) as first:
        first.output.expect(" for bob\n")
        first.type("remember this")
        first.output.expect("^-- waiting: ")
        assert "1 accepted, 0 read" in first.interrupt()
    with running(*alice) as second:
        port = second.output.expect(r" port (\d+) for bob\n")[1]
        with running("chat", f"localhost:{port}", "--id", "bob") as bob:
            bob.output.expect("^alice: remember this\n")


def test_a_line_that_was_finished_after_it_was_sent_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.write_bytes(b"a\nb")
    with listening("--output", tmp_path / "out") as (_, port):
        sending = ["send", port, "--id", "client", "--journal", tmp_path / "c.db", source]
        assert run(*sending).returncode == 0
        assert run(*sending).returncode == 0
        source.write_bytes(b"a\nbc\nd\n")
        done = run(*sending)
    assert done.returncode == 1
    assert b"was sent before it was finished, and has grown since" in done.stderr


def test_an_unfinished_line_of_an_earlier_run_without_a_journal_is_cut(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.write_bytes(b"old\npart")
    with listening("--output", output, "--journal", tmp_path / "s.db") as (listener, port):
        assert run("send", port, "--id", "client", data=b"one\ntwo\n").returncode == 0
        listener.interrupt()
    assert output.read_bytes() == b"old\none\ntwo\n"
