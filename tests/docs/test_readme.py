"""README: its programs are those that the tests run, its commands are there, its links lead somewhere."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from networkio_command.__main__ import _parser
from networkio_proto import Config, Outcome, __version__
from tests.docs.blocks import blocks_of

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [block.code for block in blocks_of(ROOT / "README.md") if block.test]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def code_of(example: str) -> str:
    """A program without its docstring."""
    source = (ROOT / "examples" / f"{example}.py").read_text(encoding="utf-8")
    end = ast.parse(source).body[0].end_lineno
    return "\n".join(source.splitlines()[end:]).strip() + "\n"


def test_programs_are_the_examples_that_are_run() -> None:
    """tests/docs/test_examples.py runs every one of them."""
    assert [code_of("server"), code_of("client")] == BLOCKS


@pytest.mark.parametrize("block", BLOCKS)
def test_program_is_a_dozen_lines_beside_its_frame(block: str) -> None:
    compile(block, "README.md", "exec")
    (body,) = [node for node in ast.parse(block).body if isinstance(node, ast.AsyncFunctionDef)]
    assert body.end_lineno is not None
    assert body.end_lineno - body.lineno < 14


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)]*)\)", TEXT)
    assert len(links) > 5
    for link in links:
        assert (ROOT / link).exists(), link


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    mentioned = set(re.findall(r"\bmake ([a-z]+)\b", TEXT)) - {"its"}
    assert mentioned == {"demo", "test", "check", "docs"}
    assert mentioned <= targets


def test_arguments_of_the_demo_are_accepted() -> None:
    (arguments,) = re.findall(r'make demo ARGS="([^"]*)"', TEXT)
    assert _parser().parse_args(["demo", *arguments.split()]).cut_every == 10000
    defaults = _parser().parse_args(["demo"])
    assert f"{defaults.messages:,} messages; the connection is cut after every {defaults.cut_every:,} bytes" in TEXT


def test_facts_are_those_of_the_code() -> None:
    assert f"Version {__version__}" in TEXT
    assert PROJECT["version"] == __version__
    assert PROJECT["readme"] == "README.md"
    assert PROJECT["requires-python"].removeprefix(">=") in TEXT
    assert f"at most {Config().limits.message // 2**20} MiB by default" in TEXT
    words = " ".join(TEXT.split())
    *some, last = [outcome.value for outcome in Outcome]
    assert f"ends as {', '.join(some)} or {last}" in words
