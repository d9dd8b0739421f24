"""``networkio ping``: who answers, how fast, and that nobody sees it."""

from __future__ import annotations

import re

from networkio_command._bridge import open_node
from networkio_command._ping import PING, summary
from networkio_command._trust import Trust
from networkio_proto import MessagesReady
from tests.command.helpers import listening, run, running


def test_pings_are_read_and_leave_no_trace_in_the_output() -> None:
    with listening() as (listener, port):
        result = run("ping", port, "--id", "pinger", "--count", 5, "--interval", "0.01")
        assert (result.returncode, result.stderr) == (0, b"")
        first, *trips, last = result.stdout.decode().splitlines()
        assert re.fullmatch(rf"listener at 127\.0\.0\.1 port {port}: protocol 1, process [0-9a-f]{{8}}", first)
        assert [re.fullmatch(r"(\d): \d+\.\d{3} ms", trip)[1] for trip in trips] == list("12345")  # type: ignore[index]
        assert re.fullmatch(r"5 sent, 5 read; min [\d.]+ ms, median [\d.]+ ms, p99 [\d.]+ ms", last)
        assert listener.interrupt().endswith("interrupted: 0 messages written and acknowledged\n")
        assert listener.output.rest() == b""


def test_application_that_does_not_read_is_noticed() -> None:
    with open_node("asyncio", "silent", trust=Trust()) as node:
        port = node.listen("127.0.0.1", 0)
        result = run("ping", port, "--id", "pinger", "--count", 2, "--interval", 0, "--timeout", "0.3")
        assert result.returncode == 1
        _, first, _, last = result.stdout.decode().splitlines()
        assert first.startswith(
            "1: not read within 0.3 s: the application of silent has not acknowledged message 1 for 0."
        )
        assert last == "2 sent, 0 read"


def test_another_application_gets_a_message_with_a_header_and_nothing_in_it() -> None:
    with open_node("asyncio", "other", trust=Trust()) as node:
        port = node.listen("127.0.0.1", 0)
        with running("ping", port, "--id", "pinger", "--count", 1) as ping:
            while not isinstance(notice := node.next_notice(20), MessagesReady):
                assert notice is not None
            (message,) = notice.peer.receive_some(9, 999)
            assert (message.data, message.headers) == (None, PING)
            notice.peer.settle([message], {})
            assert ping.wait() == 0


def test_ctrl_c_ends_with_the_figures_so_far() -> None:
    with listening() as (_, port), running("ping", port, "--id", "pinger", "--interval", "30") as ping:
        ping.output.expect("^1: ")
        assert ping.interrupt().startswith("networkio: interrupted: 1 sent, 1 read; min ")


def test_summary_is_of_the_sorted_trips() -> None:
    trips = [number / 1000 for number in range(200, 0, -1)]
    assert summary(201, trips) == "201 sent, 200 read; min 1.000 ms, median 100.500 ms, p99 198.000 ms"
    assert summary(1, [0.0005]) == "1 sent, 1 read; min 0.500 ms, median 0.500 ms, p99 0.500 ms"
    assert summary(3, []) == "3 sent, 0 read"
