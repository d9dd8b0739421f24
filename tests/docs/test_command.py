"""The command's page, its help and README: every example is accepted, every option is told, the first ones are run."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from networkio_command.__main__ import _parser
from tests.command.helpers import COMMAND, ROOT, listening, proxied, run

PAGE = (ROOT / "docs" / "howto" / "command.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")

(COMMANDS,) = [
    action.choices for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)
]


def examples(text: str) -> list[str]:
    """Command lines: what follows ``networkio`` up to a pipe or a comment."""
    lines = re.findall(r"^(?:  |\$ )?(?:.*\| )?networkio (\w+ [^|#\n]*)", text, re.MULTILINE)
    return [line.strip() for line in lines]


@pytest.mark.parametrize("line", [*examples(PAGE), *examples(README)])
def test_example_is_accepted(line: str) -> None:
    _parser().parse_args(shlex.split(line))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_that_are_accepted_and_the_exit_codes(name: str) -> None:
    text = COMMANDS[name].format_help()
    lines = examples(text)
    assert lines
    for line in lines:
        assert line.startswith(name)
        _parser().parse_args(shlex.split(line))
    assert "exit code" in text


def test_page_has_a_section_with_examples_for_every_command() -> None:
    sections = re.findall(r"^## (\w+)$", PAGE, re.MULTILINE)
    assert sections == list(COMMANDS)
    assert {line.split()[0] for line in examples(PAGE)} == set(COMMANDS)
    assert {line.split()[0] for line in examples(README)} == set(COMMANDS) - {"demo"}  # which is make's


@pytest.mark.parametrize("name", COMMANDS)
def test_page_tells_every_option_and_no_other(name: str) -> None:
    shared, _, rest = PAGE.partition("## What all of them share")[2].partition("\n## ")
    section = re.split(r"^## ", rest, flags=re.MULTILINE)[list(COMMANDS).index(name)]
    own, common = (set(re.findall(r"--[a-z][a-z-]+", text)) for text in (section, shared))
    there = {option for action in COMMANDS[name]._actions for option in action.option_strings if option[:2] == "--"}
    assert there - {"--help"} <= own | common
    assert own <= there


def test_page_and_help_agree_on_defaults() -> None:
    send, ping = (_parser().parse_args([name, "1", "--id", "x"]) for name in ("send", "ping"))
    assert (send.chunk, send.wait) == (64 * 1024, "read")
    assert "`--chunk SIZE` bytes (64K)" in PAGE
    assert "`--wait read`, the default" in PAGE
    assert f"`--count N` ({ping.count}), `--interval S` ({ping.interval}), and `--timeout S` ({ping.timeout})" in PAGE


def test_page_and_help_tell_the_exit_codes() -> None:
    assert re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE) == ["0", "1", "2", "130"]
    assert re.findall(r"(\d+) [a-zC]", re.search(r"exit codes: (.*)", _parser().format_help())[1]) == [  # type: ignore[index]
        "0", "1", "2", "130"
    ]


@pytest.mark.slow
def test_the_first_examples_do_what_the_page_says(tmp_path: Path) -> None:
    """With free ports in place of 8080 and 9090."""
    listen, send, proxy = examples(PAGE)[:3]
    assert listen == "listen 8080 --id server-001 --output notes-here.txt"
    assert send == "send localhost:8080 --id client-123 notes.txt"
    assert proxy == "proxy 9090 localhost:8080 --cut-every 20K"
    notes = (ROOT / "README.md").read_bytes() * 5
    (tmp_path / "notes.txt").write_bytes(notes)
    with (
        listening("--output", tmp_path / "notes-here.txt", peer_id="server-001") as (_, port),
        proxied(port, "--cut-every", "20K") as (_, door),
    ):
        for where in (port, door):
            sent = subprocess.run(
                [*COMMAND, *send.replace("8080", str(where)).split()],
                cwd=tmp_path, capture_output=True, timeout=40, check=False,
            )
            assert (sent.returncode, sent.stderr) == (0, b"")
    assert (tmp_path / "notes-here.txt").read_bytes() == 2 * notes


def test_the_ping_of_the_page_prints_what_the_page_shows() -> None:
    (line,) = [line for line in examples(PAGE) if line.startswith("ping")]
    shown = PAGE.partition("$ networkio " + line + "\n")[2].partition("```")[0]
    with listening(peer_id="server-001") as (_, port):
        result = run(*line.replace("8080", str(port)).split())

    def shape(text: str) -> str:
        return re.sub(r"[0-9a-f]{8}|\d+\.\d{3}", "N", text).replace(str(port), "8080").replace("127.0.0.1", "localhost")

    assert shape(result.stdout.decode()) == shape(shown)
