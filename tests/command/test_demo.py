"""The ``networkio`` command: the demonstration keeps its word, and says so when it cannot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from time import monotonic, sleep

import pytest

from networkio_command import _demo
from networkio_command.__main__ import main

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-W", "error", "-m", "networkio_command"]
KEYS = ["sent", "read", "lost", "duplicated", "out_of_order", "reconnects", "seconds"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)


def test_demo_reads_everything_through_many_cuts_and_reports_one_json_object() -> None:
    result = run("demo", "--messages", "300", "--cut-every", "3000", "--json")
    assert result.returncode == 0, result.stderr
    ledger = json.loads(result.stdout)
    assert list(ledger) == KEYS
    assert ledger["sent"] == ledger["read"] == 600
    assert ledger["lost"] == ledger["duplicated"] == ledger["out_of_order"] == 0
    assert ledger["reconnects"] >= 3
    assert 0 < ledger["seconds"] < 60
    lines = result.stderr.splitlines()
    assert lines[0].startswith("server-001 and client-123 send each other 300 messages")
    assert lines[-1] == "Every message was read, once and in order."
    shares = [int(line.split("%")[0]) for line in lines[1:-1]]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert "\r" not in result.stderr


def test_demo_draws_a_bar_on_a_terminal_and_prints_the_ledger() -> None:
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        process = subprocess.Popen(
            [*COMMAND, "demo", "--messages", "100"], stdout=subprocess.PIPE, stderr=theirs, text=True, cwd=ROOT
        )
        os.close(theirs)
        drawn = b""
        try:
            while data := screen.read(65536):
                drawn += data
        except OSError:  # how Linux tells that the other side of a terminal is closed
            pass
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    frames = [frame for frame in drawn.decode().split("\r") if frame.startswith("[")]
    assert frames[-1].startswith("[####################] 100%  200 of 200 read  ")
    assert "reconnect" in frames[-1]
    assert max(map(len, frames)) < 80
    rows = [line.split() for line in output.splitlines()]
    assert [row[0] for row in rows] == KEYS
    assert rows[:5] == [["sent", "200"], ["read", "200"], ["lost", "0"], ["duplicated", "0"], ["out_of_order", "0"]]


# -- what it would say ------------------------------------------------------------------------------------------------

#: what a child does wrong, in Python, and what the command then reports
MISDEEDS: dict[str, tuple[str, dict[str, int] | str]] = {
    "messages that are not sent, or twice, or change places": (
        "skip.add(1); twice |= {3, 4}; order[7:11] = [10, 7, 8, 9]",
        {"lost": 2, "duplicated": 4, "out_of_order": 6},
    ),
    "a message that changes on its way": ("forged.add(7)", "message 7 from "),
    "a message of somebody else": ("order[7] = 99", "never sent {'number': 99"),
    "a child that fails": ("raise _demo.DemoError('no more ink')", "failed: no more ink"),
    "a child that ends": ("raise SystemExit(3)", "server-001 ended with exit code 3 before the conversation was over"),
    "a child that dies": ("os.kill(os.getpid(), 9)", "server-001 was killed by signal 9"),
    "a conversation that stands still": ("_demo._STALLED = 0.3; part = None", "failed: nothing has moved for 0 s: "),
}

FAULTY_CHILD = """
import os, sys
import anyio
from networkio_command import _demo

async def send_all(peer, part):
    for number in order:
        if number not in skip:
            text = "something else" if number in forged else _demo.text_of(part.seed, part.name, number)
            for _ in range(1 + (number in twice)):
                await peer.send({"number": number, "text": text})
    peer.end()
    await peer.drain()

order, skip, twice, forged = list(range(20)), set(), set(), set()
part = 1
MISDEED
_demo.send_all = send_all if part else lambda peer, part: anyio.sleep_forever()
sys.exit(_demo.child(sys.argv[1]))
"""


@pytest.fixture(params=MISDEEDS)
def misdeed(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, int] | str:
    code, outcome = MISDEEDS[request.param]
    script = tmp_path / "child.py"
    indented = f"try:\n    {code}\nexcept _demo.DemoError as error:\n    _demo.tell(error=str(error))\n    sys.exit(1)"
    script.write_text(FAULTY_CHILD.replace("MISDEED", indented))
    monkeypatch.setattr(_demo, "_CHILD", [sys.executable, str(script)])
    return outcome


def test_demo_notices_and_fails_on(misdeed: dict[str, int] | str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--messages", "20", "--json"]) == 1
    output, errors = capfd.readouterr()
    last = errors.splitlines()[-1]
    if isinstance(misdeed, str):
        assert output == ""
        assert last.startswith("networkio: ")
        assert misdeed in last
    else:
        ledger = json.loads(output)
        assert {name: ledger[name] for name in KEYS[2:5]} == {name: misdeed.get(name, 0) for name in KEYS[2:5]}
        assert last == "networkio: messages were lost, doubled or mixed up; that must not happen"


# -- leaving ----------------------------------------------------------------------------------------------------------


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds children as Linux lists them")
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_children_leave_with_their_parent_when_it_gets(sign: signal.Signals, code: int) -> None:
    with subprocess.Popen(
        [*COMMAND, "demo", "--messages", "1000000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        listing = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = monotonic() + 20
        children: list[int] = []
        while len(children) < 2:
            assert monotonic() < deadline
            sleep(0.01)
            children = [int(pid) for pid in listing.read_text().split()]
        process.send_signal(sign)
        assert process.wait(20) == code
        while any(map(running, children)):
            assert monotonic() < deadline
            sleep(0.01)
        assert process.stdout.read() == ""
        errors = process.stderr.read()
    assert "Traceback" not in errors
    if sign == signal.SIGINT:
        assert errors.endswith("networkio: interrupted\n")
    else:  # the child that is killed second may have noticed the end of the first
        assert errors.splitlines()[0].endswith("or so.")


# -- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"]])
def test_help_shows_an_example(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 0
    assert "example:\n  networkio demo" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "required: COMMAND"),
        (["dance"], "'dance'"),
        (["demo", "--messages", "0"], "'0' is not a whole number from 1 to 10000000"),
        (["demo", "--messages", "many"], "'many' is not a whole number"),
        (["demo", "--cut-every", "100"], "'100' is not a whole number of at least 2000"),
        (["demo", "--seed", "x"], "--seed"),
        (["demo", "--faster"], "--faster"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert complaint in capsys.readouterr().err


def test_console_script_is_this_main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, name = project["scripts"]["networkio"].split(":")
    assert getattr(import_module(module), name) is main
    assert run("--version").stdout == f"networkio {project['version']}\n"


def test_adapter_s_own_module_is_the_command_too() -> None:
    module = [*COMMAND[:-1], "networkio_asyncio", "--version"]
    assert subprocess.run(module, capture_output=True, text=True, timeout=60, cwd=ROOT, check=True).stdout == (
        run("--version").stdout
    )
