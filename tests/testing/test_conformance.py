"""The conformance scripts: complete, played against the bare core, and over sockets against both adapters.

The runner is tested as well: by scripts that must fail, and by the examples of the specification, which its codec has
to read and write byte for byte.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest

from networkio_testing.__main__ import main
from networkio_testing.conformance import BareStage, Case, Failure, Player, ScriptError, load
from networkio_testing.conformance.codec import Malformed, build, mac, parse
from networkio_testing.conformance.script import read_cases
from networkio_testing.conformance.unseen import UNSEEN
from networkio_testing.conformance.values import evaluate, split

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
CASES = load()


def rules() -> dict[str, str]:
    """The numbered rules of the specification, by number."""
    found: dict[str, str] = {}
    number = ""
    for text in PAGE.splitlines():
        begin = re.match(r"\* \*\*(P-[A-Z]+-\d+)\*\* ", text)
        if begin:
            number = begin[1]
            assert number not in found
            found[number] = text
        elif number and text.startswith("  "):
            found[number] += text
        else:
            number = ""
    return found


# -- which there are --------------------------------------------------------------------------------------------------


def test_every_rule_that_says_must_is_covered() -> None:
    must = {number for number, text in rules().items() if "MUST" in text}
    assert len(must) > 200
    covered = {number for case in CASES for number in case.covers}
    assert must - covered - UNSEEN.keys() == set()
    assert UNSEEN.keys() <= must


def test_no_case_covers_a_rule_that_is_not_there() -> None:
    assert {number for case in CASES for number in case.covers} <= rules().keys()
    assert all(case.covers for case in CASES)


def test_what_is_unseen_is_held_by_a_test_that_exists() -> None:
    for where in {where for _, where in UNSEEN.values() if where.startswith("tests/")}:
        path, name = where.split("::")
        assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8")


def test_no_two_cases_check_the_same() -> None:
    assert len(CASES) >= 300
    bodies = [(case.role, case.arbiter, case.node, tuple(step.text for step in case.steps)) for case in CASES]
    assert len(set(bodies)) == len(bodies)
    assert len({case.name for case in CASES}) == len(CASES)


def test_every_case_expects_something() -> None:
    """A script that only speaks would pass whatever came."""
    for case in CASES:
        assert any(step.text.startswith(("E<", "A:", "check", "live", "claim", "attach")) for step in case.steps), case


def test_a_wire_case_needs_neither_an_application_nor_a_virtual_clock() -> None:
    wire = [case for case in CASES if case.wire]
    assert len(wire) >= 250
    for case in wire:
        assert case.role == "acceptor", case
        assert not case.node, case
        assert not any(step.text.startswith(("A:", "T+", "key", "role")) for step in case.steps), case


# -- against the bare core --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_bare_core(case: Case) -> None:
    Player(case, BareStage(case, echo=case.wire)).run()


# -- against both adapters --------------------------------------------------------------------------------------------


@contextmanager
def echo(adapter: str) -> Iterator[str]:
    """The address of an echo application in a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "networkio_testing", "echo", "0", "--adapter", adapter]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        try:
            assert process.stdout
            yield process.stdout.readline().strip().removeprefix("echo at ")
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate()
        finally:
            watchdog.cancel()
            process.kill()
    assert process.returncode == 0, said
    assert "Traceback" not in said, said


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["asyncio", "threads"])
def test_the_wire(adapter: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wire = [case.name for case in CASES if case.wire]
    with echo(adapter) as address:
        status = main(["conformance", address, "--patience", "20", "--junit", str(tmp_path / "report.xml")])
    said = capsys.readouterr().out
    assert status == 0, [text for text in said.splitlines() if not text.startswith("ok")]
    assert f"{len(wire)} passed, 0 failed, {len(CASES) - len(wire)} not for the wire" in said
    suite = ElementTree.parse(tmp_path / "report.xml").getroot().find("testsuite")
    assert suite is not None
    assert [case.get("name") for case in suite.iter("testcase")] == wire
    assert (suite.get("tests"), suite.get("failures")) == (str(len(wire)), "0")


# -- the command line -------------------------------------------------------------------------------------------------


@contextmanager
def mute() -> Iterator[str]:
    """Somebody who answers the first HELLO as the specification says, and hangs up on everybody else."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            first = True
            while True:
                try:
                    stream = server.accept()[0]
                except OSError:
                    return
                with stream:
                    if first:
                        stream.recv(65536)
                        limits = {"frame": 65536, "message": 1000, "idle": 45000}
                        stream.sendall(bytes.fromhex("4e494f000d0a0100") + build("HELLO_ACK", {
                            "v": 1, "id": "m\x1b", "incarnation": bytes(16), "nonce": bytes(32), "features": [],
                            "auth": "insecure", "limits": limits, "codec": "msgpack",
                        }))  # fmt: skip
                    first = False

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_an_implementation_that_fails_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.xml"
    with mute() as address:
        assert main(["conformance", address, "--case", "ping", "--case", "fin-ta*", "--junit", str(path)]) == 1
    said = capsys.readouterr().out
    assert "FAIL fin-taken  [P-FIN-2 P-FIN-3]" in said
    assert "0 passed, 2 failed" in said
    assert "06-acks.script, line" in said
    suite = ElementTree.parse(path).getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "2")
    assert all("preamble" in str(item.get("message")) for item in suite.iter("failure"))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere"], "nowhere is no HOST:PORT"),
        (["127.0.0.1:0"], "is no HOST:PORT"),
        ([], "nothing is no HOST:PORT"),
        (["127.0.0.1:1"], "nobody answers"),
        (["127.0.0.1:1", "--case", "no-such-case"], "there is no case no-such-case"),
    ],
)
def test_what_cannot_be_tried(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", *arguments]) == 2
    assert complaint in capsys.readouterr().err


def test_the_cases_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "--list"]) == 0
    said = capsys.readouterr().out
    assert all(f"{case.name}  [{' '.join(case.covers)}]\n      {case.title}\n" in said for case in CASES)


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(SystemExit, match="in use"):
        main(["echo", str(server.getsockname()[1]), "--adapter", "threads"])


# -- scripts that must fail -------------------------------------------------------------------------------------------

WRONG = {
    "another frame": ("live\nI> PING\nE< DATA sequence=1", "PONG .*, where DATA sequence=1 was expected|nothing more"),
    "another value": ('live\nI> PING\nE< PONG opaque=fill(0, 8)', "not opaque=fill"),
    "another nested value": ("live\nlive b\ncut\nlive c\ncheck attach.inbox == 7", "that does not hold"),
    "nothing comes": ("live\nE< DATA within 1s", "nothing more came within 1 s"),
    "something comes": ("live\nI> PING\nE< nothing within 1s", "PONG .* came, where nothing was expected"),
    "the end comes": ("live\nI> hex 00 00 00 00 00 00\nE< nothing within 1s", "CLOSE .*nothing was expected"),
    "no end comes": ("live\nE< eof", "did not end"),
    "another end comes": ("live\nI> hex 00 00 00 00 00 00\nE< closed TIMEOUT", "not code=TIMEOUT"),
    "an end in place of a word": ("live\nI> CLOSE code=0\nE< PONG", "the stream ended"),
    "what must never come": ("live\nnever PONG\nI> PING\nE< nothing within 1s", "must never come"),
    "an ACK of something else": ('live\nI> DATA sequence=1 value="x"\nE< ACK received=2', "came ACK .*received=1"),
    "no preamble": ("new connection\nE< PREAMBLE", "no preamble"),
    "no message": ('live\nA: read "x"', "there is no message"),
    "another message": ('live\nI> DATA sequence=1 value="x"\nA: read "y"', "raw is"),
    "too many messages": ('live\nI> DATA sequence=1 value="x"\nA: nothing', "1 messages"),
    "another outcome": ('A: send "x"\nA: outcome 1 READ', "outcome of 1 is None"),
    "no refusal": ('A: send "x" refused="SessionClosed"', "not refused"),
    "another refusal": ('A: end\nA: send "x" refused="OutboxFull"', "SessionClosed: "),
    "no dial": ("E< dial within 5s", "does not dial"),
}  # fmt: skip


def play(body: str, header: str = "covers: P-HS-1\n") -> None:
    [case] = read_cases("test", f"case a-case: A case.\n{header}{body}\n")
    Player(case, BareStage(case)).run()


@pytest.mark.parametrize(("body", "complaint"), WRONG.values(), ids=WRONG)
def test_a_script_fails_when_something_else_happens(body: str, complaint: str) -> None:
    with pytest.raises(Failure, match=complaint) as failed:
        play(body)
    assert "test.script, line" in str(failed.value)


def test_a_script_fails_when_the_core_dials_against_it() -> None:
    with pytest.raises(Failure, match="it dials"):
        play("E< no dial within 5s", "covers: P-HS-1\nrole: dialer\n")


MEANINGLESS = {
    "no step": "dance",
    "no application": "A: dance",
    "no connection": "E< PONG",
    "no value": "new connection\nI> PING opaque=(",
    "no name": "new connection\nI> PING opaque=$never",
    "no field": "live\nI> PING opaque",
    "no condition": "live\nE< PONG opaque",
    "no python": "new connection\nI> PING opaque=open(1)",
}


@pytest.mark.parametrize("body", MEANINGLESS.values(), ids=MEANINGLESS)
def test_a_script_that_means_nothing_is_no_failure_of_the_implementation(body: str) -> None:
    with pytest.raises(ScriptError, match=r"test\.script, line"):
        play(body)


@pytest.mark.parametrize(
    "text",
    ["live", "case A case", "case a: no stop", "case a: A title.\neach: x y\n  1 | 2 | 3\nlive"],
)
def test_a_file_that_is_no_script_is_refused(text: str) -> None:
    with pytest.raises(ScriptError):
        read_cases("test", text)


def test_a_table_stands_for_its_rows() -> None:
    text = "case is-<x>: It is <y>.\ncovers: P-HS-1\neach: x y\n    a | one | more\n    b | \nlive <y>"
    with pytest.raises(ScriptError):
        read_cases("test", text)
    cases = read_cases("test", text.replace(" | more", ""))
    assert [(case.name, case.title, case.steps[0].text) for case in cases] == [
        ("is-a", "It is one.", "live one"), ("is-b", "It is .", "live"),
    ]  # fmt: skip


def test_values() -> None:
    names = {"bound_x": 5, "attach": {"inbox": {"read": 7}}}
    for text, value in {
        "12": 12, "2**63-1": 2**63 - 1, "MAX": 2**63 - 1, "nil": None, "true": True, '"a b"': "a b", "$x+1": 6,
        "attach.inbox.read": 7, "[1, nil]": [1, None], '{"a": [true]}': {"a": [True]}, 'hex("00 ff")': b"\0\xff",
        "fill(0x41, 3)": b"AAA", "FLOW": 9, "1 == 2 or 2 == 2": True, "-1": -1, "[1, 2][1]": 2, "MORE|RAW": 0x41,
    }.items():  # fmt: skip
        assert evaluate(text, names) == value
    assert split('a "b c" {"d": 1}  [e, f]') == ["a", '"b c"', '{"d": 1}', "[e, f]"]
    for text in ("__import__('os')", "nothing", "a.b", "[x for x in y]", "lambda: 1", "1 if 1 else 2", "''.join([])"):
        with pytest.raises(ScriptError):
            evaluate(text, names)
    with pytest.raises(ScriptError):
        split('a "b')


# -- the documentation ------------------------------------------------------------------------------------------------

REFERENCE = (ROOT / "docs" / "reference" / "conformance.md").read_text(encoding="utf-8")


def test_the_script_of_the_reference_is_one() -> None:
    shown = re.search(r"```text\n(case .*?)```", REFERENCE, re.S)
    assert shown
    [case] = read_cases("reference", shown[1])
    assert case.wire
    Player(case, BareStage(case, echo=True)).run()


def test_the_reference_names_every_command_of_the_application() -> None:
    table = REFERENCE[REFERENCE.index("### The application") :]
    commands = [name.removeprefix("_do_") for name in vars(BareStage) if name.startswith("_do_")]
    assert len(commands) > 25
    used = {step.text.split()[1].replace("-", "_") for case in CASES for step in case.steps if step.text[:2] == "A:"}
    assert {name for name in commands if not name.startswith("expect_")} == used
    for name in commands:
        assert name.startswith("expect_") or re.search(rf"`{name}\b", table), name


def test_the_reference_names_every_step_and_function_that_the_scripts_use() -> None:
    used = {step.text.split()[0] for case in CASES for step in case.steps}
    for word in {"T+" if word.startswith("T+") else word for word in used}:
        assert f"`{word}" in REFERENCE, word
    for name in {name for case in CASES for step in case.steps for name in re.findall(r"\b([a-z]+)\(", step.text)}:
        assert f"`{name}(" in REFERENCE or name == "len", name


# -- the codec --------------------------------------------------------------------------------------------------------


def examples() -> dict[str, bytes]:
    """The frames that the specification shows, byte for byte."""
    found = {}
    for name, body in re.findall(r"```text\n# example ([a-z-]+)\n(.*?)```", PAGE, re.S):
        rows = re.findall(r"^[0-9a-f]{4}  ((?:[0-9a-f]{2} ?)+)", body, re.M)
        if rows and name not in ("preamble", "payload"):
            found[name] = bytes.fromhex("".join(rows)).removeprefix(bytes.fromhex("4e494f000d0a0100"))
    return found


EXAMPLES = examples()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_codec_reads_and_writes_the_examples_of_the_specification(name: str) -> None:
    buffer, again = bytearray(EXAMPLES[name]), b""
    while (frame := parse(buffer)) is not None:
        fields = {key: value for key, value in frame.fields.items() if key not in ("raw", "size")}
        if frame.name.startswith("TYPE_"):
            fields["type"] = frame.raw[4]
        again += build(frame.name, fields)
        assert frame.name in str(frame)
    assert not buffer
    assert again == EXAMPLES[name]


def test_the_codec_knows_the_vector_of_the_specification() -> None:
    blocks = re.search(r"# example psk\n(.*?)```", PAGE, re.S)
    assert blocks
    found: dict[str, bytes] = {}
    for title, rows in re.findall(r"^(\S+?)(?:,.*)? \(\d+ bytes\)\n((?:  .*\n)+)", blocks[1], re.M):
        found[title] = bytes.fromhex(rows)
    preamble = bytes.fromhex("4e494f000d0a0100")
    transcript = preamble + found["HELLO"] + preamble + found["HELLO_ACK"]
    ids = ("client-123", "server-001")
    assert mac(found["psk"], b"D", ids, transcript, found["ATTACH_D"]) == found["mac_D"]
    assert mac(found["psk"], b"A", ids, transcript, found["ATTACH_A"], found["mac_D"]) == found["mac_A"]


@pytest.mark.parametrize(
    "data",
    ["00000001 20", "00000003 20 00 00", "00000003 01 00 91", "00000003 01 01 80", "00000007 01 00 8201010101",
     "00000006 03 00 81a161c1", "0000000b 30 01 0000 00000000000000"],
)  # fmt: skip
def test_the_codec_refuses_what_is_no_frame(data: str) -> None:
    buffer = bytearray.fromhex(data)
    with pytest.raises(Malformed):
        parse(buffer + bytes(4))
