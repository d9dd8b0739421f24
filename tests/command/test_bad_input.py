"""What cannot be done is said in one line without a traceback, and the exit code tells whose fault it was."""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from networkio_command.__main__ import main
from networkio_command._arguments import address, number, peer_id, positive_seconds, seconds, size
from networkio_command._bridge import open_node
from networkio_command._trust import Trust
from networkio_proto import PeerConnected
from tests.command.helpers import COMMAND, PATIENCE, ROOT, listening, run, running

#: longer than a label of a name can be: nothing has to be asked on the network
NOWHERE = "a" * 64 + ".localhost"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on who is no networkio node, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        ("listen {taken} --id x", 1, "cannot listen on 127.0.0.1 port {taken}: the address is in use by another proc"),
        ("listen {nowhere}:0 --id x", 1, "cannot listen on {nowhere} port 0: the host name does not resolve"),
        ("listen 0.0.0.0:0 --id x", 2, '0.0.0.0 is not loopback: .*auth=PSK.*tls=TLS.*auth="insecure" .*: --keys .*'),
        ("listen 0 --id x --output {tmp}/no/such", 1, "{tmp}/no/such: No such file or directory"),
        ("listen 0 --id x --output {tmp}", 1, "{tmp}: Is a directory"),
        ("listen {taken} --id x --adapter threads", 1, "cannot listen on 127.0.0.1 port {taken}: the address is in"),
        ("send {nowhere}:80 --id x --adapter threads", 1, "dialling failed: {nowhere}:80: .*not known"),
        ("ping {nowhere}:80 --id x --adapter threads", 1, "dialling failed: {nowhere}:80: .*not known"),
        ("send {taken} --id x {tmp}/no", 1, "{tmp}/no: No such file or directory"),
        ("send {taken} --id x {tmp}", 1, "{tmp}: Is a directory"),
        ("send {nowhere}:80 --id x", 1, "dialling failed: {nowhere}:80: .*not known"),
        ("send {nowhere}:80 --id x --to y", 1, "dialling failed: {nowhere}:80: .*not known"),
        ("send 0 --id x", 2, "0 is not a port"),
        ("send 192.0.2.1:80 --id x", 2, '192.0.2.1 is not loopback: .*three ways.* auth="insecure" .*; --insecure\\)'),
        ("ping {nowhere}:80 --id x", 1, "dialling failed: {nowhere}:80: .*not known"),
        ("chat {taken} --id x", 1, "cannot listen on 127.0.0.1 port {taken}: "),
        ("chat {nowhere}:80 --id x", 1, "dialling failed: {nowhere}:80: .*not known"),
        ("chat {nowhere}:80 --id x --to y", 1, "dialling failed: {nowhere}:80: .*not known"),
        ("chat 8080 --id x --to x", 2, "--to x is this side's own --id"),
        ("proxy {taken} 80", 1, "there can be no proxy on 127.0.0.1 port {taken}, for .*: Address already in use"),
        ("proxy 0 {nowhere}:80", 1, "there can be no proxy on 127.0.0.1 port 0, for .*not known"),
        ("proxy 0.0.0.0:0 80", 2, "0.0.0.0 is not loopback: .*--insecure"),
        ("proxy 0 192.0.2.1:80", 2, "192.0.2.1 is not loopback: .*--insecure"),
    ],
)
def test_command_fails_with_one_line(
    arguments: str, code: int, complaint: str, taken: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = {"taken": str(taken), "nowhere": NOWHERE, "tmp": str(tmp_path)}
    assert main(arguments.format(**words).split()) == code
    output, errors = capfd.readouterr()
    lines = [line for line in (output + errors).splitlines() if not line.startswith("-- ")]
    (line,) = [line for line in lines if " listens on " not in line]
    assert re.match("networkio: " + complaint.format(**words), line), line


def test_wrong_ids_are_told_by_whoever_answers(capfd: pytest.CaptureFixture[str]) -> None:
    with listening() as (_, port):
        for arguments, complaint in [
            ("--id listener", "a node connected to itself; check the address: both ends are listener"),
            ("--id x --to other", "another peer answered than the one that was meant; .*: this is listener, not other"),
        ]:
            for command in (f"send {port}", f"ping {port}", f"chat localhost:{port}"):
                assert main([*command.split(), *arguments.split()]) == 1
                output, errors = capfd.readouterr()
                assert output == ""
                assert re.fullmatch(f"networkio: .*{complaint}\n", errors), errors


def test_peer_that_is_replaced_by_another_ends_the_sending_with_the_ledger() -> None:
    with running("chat", 0, "--id", "first") as first:
        port = int(first.output.expect(r" port (\d+) ")[1])
        with running("send", port, "--id", "x", "--to", "first") as sender:
            sender.type("a")
            first.output.expect("^x: a")
            first.process.kill()
            first.wait()
            with open_node("asyncio", "second", trust=Trust()) as node:
                node.listen("127.0.0.1", port)
                sender.type("b")
                sender.input.close()
                assert sender.wait() == 1
            errors = sender.errors.rest().decode().splitlines()
    assert "another peer answered than the one that was meant" in errors[0]
    # the acknowledgement of the first may have died with its reader
    assert re.fullmatch(r"networkio: 2 accepted, [01] read, [12] not known to be read", errors[1])


def test_sender_waits_for_a_peer_that_is_not_there_yet_and_says_what_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with running("send", port, "--id", "x") as sender:
        sender.type("a")
        sender.input.close()
        sender.errors.expect(rf"^networkio: waiting: dialling failed: 127\.0\.0\.1:{port}: ")
        with open_node("asyncio", "late", trust=Trust()) as node:
            node.listen("127.0.0.1", port)
            while not isinstance(notice := node.next_notice(20), PeerConnected):
                assert notice is not None
            while not (messages := notice.peer.receive_some(9, 999)):
                pass
            notice.peer.settle(messages, {})
            assert sender.wait() == 0


def test_ctrl_c_while_nobody_answers_ends_within_a_moment() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        running("send", server.getsockname()[1], "--id", "x") as sender,
    ):
        server.accept()[0].close()  # it has dialled
        began = monotonic()
        assert sender.interrupt().endswith("networkio: interrupted: 0 accepted, 0 read\n")
        assert monotonic() < began + 5


SECOND_PRESS = """
import sys, time
from networkio_command import _terminal
_terminal._ONE_PRESS = 0
with _terminal.Interrupts():
    print("ready", flush=True)
    sys.stdin.readline()
    print("still here", flush=True)
    time.sleep(60)
"""


def test_first_ctrl_c_leaves_the_command_time_and_the_second_ends_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SECOND_PRESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"still here\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


def test_reader_of_the_output_that_leaves_ends_the_listener() -> None:
    reader, writer = os.pipe()
    with subprocess.Popen(
        [*COMMAND, "listen", "0", "--id", "listener"], stdout=writer, stderr=subprocess.PIPE, cwd=ROOT
    ) as listener:
        os.close(writer)
        os.close(reader)
        assert listener.stderr is not None
        port = listener.stderr.readline().split()[-1].decode()
        with running("send", port, "--id", "x") as sender:
            sender.type("a")
            assert listener.wait(PATIENCE) == 1
        assert listener.stderr.read().endswith(b"networkio: Broken pipe\n")


def test_line_longer_than_a_message_is_refused_without_being_held(tmp_path: Path) -> None:
    path = tmp_path / "in"
    with path.open("wb") as file:
        file.write(b"short\n")
        file.truncate(1 << 30)  # a hole: a GiB of zeros
    with listening() as (listener, port):
        result = run("send", port, "--id", "x", path)
        assert result.returncode == 1
        assert result.stderr.decode().splitlines() == [
            "networkio: a line is longer than 16 MiB; send such input with --raw", "networkio: 1 accepted, 1 read"
        ]
        listener.output.expect("^short\n")


# -- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080", ("127.0.0.1", 8080)), (":8080", ("127.0.0.1", 8080)), ("host:0", ("host", 0)),
        ("[::1]:8080", ("::1", 8080)), ("192.0.2.1:65535", ("192.0.2.1", 65535)),
        ("", None), ("host", None), ("host:", None), ("65536", None), ("::1:80", None), ("[::1]", None), ("-1", None),
        ("8080\n", None), ("a:b:80", None), ("[]:80", None),
    ],
)
def test_addresses(text: str, expected: tuple[str, int] | None) -> None:
    if expected is not None:
        assert address(text) == expected
        return
    with pytest.raises(argparse.ArgumentTypeError, match="is not HOST:PORT"):
        address(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", 1), ("64K", 65536), ("1m", 1 << 20), ("0", None), ("2M", None), ("1.5K", None), ("K", None)],
)
def test_sizes(text: str, expected: int | None) -> None:
    convert = size(1, 1 << 20)
    if expected is not None:
        assert convert(text) == expected
        return
    with pytest.raises(argparse.ArgumentTypeError, match="is not a size such as 64K or 1M from 1 to 1048576"):
        convert(text)


@pytest.mark.parametrize(
    ("convert", "text"),
    [
        (seconds, "-1"), (seconds, "nan"), (seconds, "inf"), (seconds, "soon"), (positive_seconds, "0"),
        (number(1, 5), "6"), (number(1), "0"), (number(1), "x"), (peer_id, "a b"), (peer_id, ""),
    ],
)
def test_what_is_no_number_or_id_is_refused(convert, text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(argparse.ArgumentTypeError, match="is not"):
        convert(text)


@pytest.mark.parametrize(
    "arguments",
    ["listen", "listen 8080", "listen 8080 --id x --json --raw", "send --id x", "ping 80 --id x --count 0",
     "chat here --id x", "proxy 80", "proxy 80 81 --rate fast", "send 80 --id x a b"],
)
def test_wrong_arguments_end_with_2(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments.split())
    assert left.value.code == 2
    assert re.match("usage: networkio .*\nnetworkio.*: error: ", capsys.readouterr().err, re.DOTALL)
