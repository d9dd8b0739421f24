"""``networkio send`` to ``networkio listen``: what comes out is what went in, through cuts, kills and full disks."""

from __future__ import annotations

import json
import os
from itertools import count
from pathlib import Path
from time import monotonic

import pytest

from networkio_command._bridge import ADAPTERS, Peer, open_node
from networkio_command._output import Output
from networkio_command._trust import Trust
from networkio_proto import Ledger
from tests.command.helpers import listening, proxied, real_text, run, running

ODD = (
    b"plain\r\n\n  blanks \t\nGr\xc3\xbc\xc3\x9fe\n\xff\xfe not UTF-8\n\xef\xbb\xbfa mark\n"
    b"vt\x0b ff\x0c nel\xc2\x85 ls\xe2\x80\xa8 fs\x1c\n\x00\n"
)


# -- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_lines_come_out_byte_for_byte_whatever_they_hold(adapter: str, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(ODD)
    with listening("--output", target, "--adapter", adapter) as (listener, port):
        result = run("send", port, "--id", "sender", "--adapter", adapter, source)
        assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
        assert target.read_bytes() == ODD
        errors = listener.interrupt()
    assert "sender is connected" in errors
    assert errors.endswith("networkio: interrupted: 8 messages written and acknowledged\n")


def test_a_pipe_is_sent_as_it_comes_to_standard_output() -> None:
    with listening() as (listener, port), running("send", port, "--id", "sender") as sender:
        sender.type("first")
        listener.output.expect("^first\n")  # before the second is there
        sender.type("second")
        listener.output.expect("^second\n")
        sender.input.close()
        assert sender.wait() == 0


def test_a_missing_final_line_feed_is_added(tmp_path: Path) -> None:
    with listening("--output", tmp_path / "out") as (_, port):
        assert run("send", port, "--id", "sender", data=b"first\nlast").returncode == 0
    assert (tmp_path / "out").read_bytes() == b"first\nlast\n"


def test_nothing_to_send_is_read_at_once() -> None:
    with listening() as (_, port):
        assert run("send", port, "--id", "sender").returncode == 0


@pytest.mark.slow
def test_senders_of_one_id_and_of_others_follow_each_other(tmp_path: Path) -> None:
    with listening("--output", tmp_path / "out") as (_, port):
        for sender in ("ann", "ann", "ben"):
            assert run("send", port, "--id", sender, data=sender.encode() + b"\n").returncode == 0
    assert (tmp_path / "out").read_bytes() == b"ann\nann\nben\n"


@pytest.mark.slow
@pytest.mark.parametrize("sends", ADAPTERS)
@pytest.mark.parametrize("listens", ADAPTERS)
def test_two_megabytes_come_out_byte_for_byte_though_the_connection_is_cut_again_and_again(
    sends: str, listens: str, tmp_path: Path
) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(real_text(2_000_000))
    with (
        listening("--output", target, "--adapter", listens) as (_, port),
        proxied(port, "--cut-every", 20_000, "--seed", 7) as (proxy, door),
    ):
        result = run("send", door, "--id", "sender", "--adapter", sends, source)
        assert result.returncode == 0, result.stderr
        cuts = proxy.interrupt()
    assert target.read_bytes() == source.read_bytes()
    assert int(cuts.split(" cuts,")[0].rpartition(" ")[2].replace(",", "")) > 50


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_listener_that_is_killed_and_started_again_misses_no_line_and_tears_none(adapter: str, tmp_path: Path) -> None:
    target = tmp_path / "out"
    lines = [b"%d %s" % pair for pair in zip(count(), real_text(3_000_000).splitlines(), strict=False)]
    source = tmp_path / "in"
    source.write_bytes(b"\n".join(lines) + b"\n")
    with running("proxy", 0, 1, "--rate", "1M") as door:  # a port that is free, and not given to anybody else
        port = int(door.output.expect(r":(\d+)")[1])
    with running("send", port, "--id", "sender", "--adapter", adapter, source) as sender:
        for size in (100_000, 300_000, 900_000):
            with listening("--output", target, "--adapter", adapter, port=port) as (listener, _):
                while target.stat().st_size < size:
                    assert listener.process.poll() is None
                listener.process.kill()
        with listening("--output", target, "--adapter", adapter, port=port):
            assert sender.wait() == 0
    written = target.read_bytes()
    assert written.endswith(b"\n")
    seen = list(dict.fromkeys(written[:-1].split(b"\n")))  # without repetitions, each at its first place
    assert seen == lines


# -- a file that is gone on with --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "kept"),
    [(b"", b""), (b"one\n", b"one\n"), (b"one\ntw", b"one\n"), (b"on", b""), (b"\n" + b"x" * 200_000, b"\n")],
)
def test_unfinished_line_at_the_end_is_cut_off(before: bytes, kept: bytes, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(before)
    output = Output(str(path), lines=True)
    assert path.read_bytes() == kept
    assert output.cut == len(before) - len(kept)
    output.write(b"more\n")
    output.close()
    assert path.read_bytes() == kept + b"more\n"


def test_what_raw_has_written_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"abc")
    Output(str(path), lines=False).close()
    assert path.read_bytes() == b"abc"


def test_listener_says_what_it_cut_off(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"whole\nhal")
    with listening("--output", tmp_path / "out") as (listener, port):
        assert run("send", port, "--id", "sender", data=b"half\n").returncode == 0
        assert "cut an unfinished line of 3 bytes off the end of " in listener.interrupt()
    assert (tmp_path / "out").read_bytes() == b"whole\nhalf\n"


def test_disk_that_is_full_in_the_midst_of_a_line_leaves_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Output(str(tmp_path / "out"), lines=True)
    output.write(b"one\n")
    write = os.write

    def half(descriptor: int, data: memoryview) -> int:
        if len(data) < 8:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:4])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space"):
        output.write(b"two\nthree\n")
    output.close()
    assert (tmp_path / "out").read_bytes() == b"one\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_what_could_not_be_written_is_not_acknowledged() -> None:
    with listening("--output", "/dev/full") as (listener, port), running("send", port, "--id", "sender") as sender:
        sender.type("lost?")
        assert listener.wait() == 1
        assert listener.errors.rest().endswith(b"networkio: No space left on device\n")
        assert "interrupted: 1 accepted, 0 read, 1 not known to be read" in sender.interrupt()


# -- other forms ------------------------------------------------------------------------------------------------------


def test_json_documents_arrive_as_what_they_say(tmp_path: Path) -> None:
    documents = [{"a": [1, 2.5, None, True]}, "Gr\u00fc\u00dfe\n", 10**30, [], -0.0]
    data = "".join(f"  {json.dumps(document)} \r\n" for document in documents).encode()
    with listening("--json", "--output", tmp_path / "out") as (_, port):
        assert run("send", port, "--id", "sender", "--json", data=data).returncode == 0
    lines = (tmp_path / "out").read_bytes().splitlines()
    assert [json.loads(line) for line in lines] == documents


def test_line_that_is_not_json_ends_the_sending_and_what_stood_before_it_is_read(tmp_path: Path) -> None:
    with listening("--output", tmp_path / "out") as (_, port):
        result = run("send", port, "--id", "sender", "--json", data=b'{"a": 1}\n[2]\nNaN\n4\n')
    assert result.returncode == 1
    assert result.stderr.decode().splitlines() == [
        "networkio: line 3 is not JSON: it has no NaN", "networkio: 2 accepted, 2 read"
    ]
    assert (tmp_path / "out").read_bytes() == b'{"a": 1}\n[2]\n'


def test_json_that_no_message_can_carry_ends_the_sending_with_its_line(tmp_path: Path) -> None:
    with listening("--output", tmp_path / "out") as (_, port):
        result = run("send", port, "--id", "sender", "--json", data=b'1\n["\\ud800"]\n3\n')
    assert result.returncode == 1
    assert result.stderr.startswith(b"networkio: line 2 cannot be sent: ")
    assert (tmp_path / "out").read_bytes() == b"1\n"


@pytest.mark.parametrize(("chunk", "messages"), [("64K", 4), ("1000", 201), ("16M", 1)])
def test_raw_bytes_come_out_as_they_went_in(chunk: str, messages: int, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(bytes(range(256)) * 784 + b"end")
    with listening("--raw", "--output", target) as (listener, port):
        assert run("send", port, "--id", "sender", "--raw", "--chunk", chunk, source).returncode == 0
        assert f"{messages} message{'s' * (messages > 1)} written" in listener.interrupt()
    assert target.read_bytes() == source.read_bytes()


def test_chunks_of_a_pipe_are_whole_too(tmp_path: Path) -> None:
    with listening("--raw") as (listener, port), running(
        "send", port, "--id", "sender", "--raw", "--chunk", 10, "-"
    ) as sender:
        for piece in (b"12345\n", b"678901\n", b"2"):
            sender.input.write(piece)
            sender.input.flush()
        sender.input.close()
        assert sender.wait() == 0
        assert "2 messages written" in listener.interrupt()
        assert listener.output.rest() == b"12345\n678901\n2"


# -- what has no place ------------------------------------------------------------------------------------------------

OBJECTS = ["text", "two\nlines", {"a": [None]}, {1, 2}, b"\xff\x00", float("nan"), 10**4500, (1, "\u00fc"), "last"]

WRITTEN = {
    (): (b'text\n{"a": [null]}\n{1, 2}\n\xff\x00\nnan\n[1, "\xc3\xbc"]\nlast\n', 2),
    ("--json",): (b'"text"\n"two\\nlines"\n{"a": [null]}\n[1, "\xc3\xbc"]\n"last"\n', 4),
    ("--raw",): (b"\xff\x00", 8),
}


@pytest.mark.parametrize("form", WRITTEN)
def test_message_without_a_place_in_the_form_is_rejected_and_the_others_are_written(form: tuple[str, ...]) -> None:
    output, rejected = WRITTEN[form]
    with listening(*form) as (listener, port):
        with open_node("asyncio", "sender", trust=Trust()) as node:
            peer = node.connect("127.0.0.1", port, None).result(20)
            count, receipt = peer.send_some(OBJECTS, raw=False, timeout=20)
            assert (count, receipt) != (0, None)
            ledger = settled(peer)
            assert (ledger.accepted, ledger.rejected) == (len(OBJECTS), rejected)
            reasons = [failure.reason for failure in peer.failures()]
        errors = listener.interrupt()
        assert listener.output.rest() == output
    assert f"{len(OBJECTS) - rejected} message" in errors
    assert errors.endswith(f"acknowledged, {rejected} rejected\n")
    expected = {(): "it holds a line break", ("--json",): "JSON cannot carry it"}.get(form, "this listener writes")
    assert any(reason.startswith(expected) for reason in reasons)
    assert f" of sender was rejected: {expected}" in errors


def settled(peer: Peer) -> Ledger:
    """The ledger, once every message has its end."""
    deadline = monotonic() + 20
    while (ledger := peer.ledger).unread:
        assert monotonic() < deadline
    return ledger


def test_sender_of_a_rejected_line_says_so_and_fails() -> None:
    with listening("--raw") as (_, port):
        result = run("send", port, "--id", "sender", data=b"a\n\xff\nb\nc\n")
    assert result.returncode == 1
    *told, sums = result.stderr.decode().splitlines()
    assert told[0].startswith("networkio: message 1 was rejected: this listener writes bytes only")
    assert told[1].endswith("; and so 1 message after it")
    assert sums == "networkio: 4 accepted, 1 read, 3 rejected"


def test_only_the_first_rejections_are_told_one_by_one() -> None:
    with listening("--raw") as (listener, port):
        result = run("send", port, "--id", "sender", "--json", data=b"".join(b"%d\n" % n for n in range(50)))
        errors = listener.interrupt()
    assert result.returncode == 1
    assert errors.count("was rejected") == 10
    assert "further rejections are only counted" in errors
    assert "50 rejected" in errors


# -- how long a sender waits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["received", pytest.param("accepted", marks=pytest.mark.slow)])
def test_sender_that_need_not_wait_for_readers_leaves_without_one(stage: str) -> None:
    with open_node("asyncio", "silent", trust=Trust()) as node:
        port = node.listen("127.0.0.1", 0)
        result = run("send", port, "--id", "sender", "--wait", stage, data=b"a\nb\n")
        assert result.returncode == 0
        assert result.stderr == b"networkio: 2 accepted, 0 read, 2 not known to be read\n"
        assert [message.data for message in node.peer("sender").receive_some(9, 999)] == ["a", "b"]


def test_sender_that_is_interrupted_tells_what_was_not_read() -> None:
    with open_node("asyncio", "slow", trust=Trust()) as node:
        port = node.listen("127.0.0.1", 0)
        with running("send", port, "--id", "sender") as sender:
            sender.type("a")
            sender.type("b")
            sender.input.close()
            peer = node.peer("sender")
            taken = 0
            while taken < 2:
                assert node.next_notice(20) is not None
                taken += len(peer.receive_some(9, 999))
            assert sender.interrupt() == "networkio: interrupted: 2 accepted, 0 read, 2 not known to be read\n"
