"""The reference against the code: every setting with its default, every error, notice, type, and method."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import ModuleType, NoneType
from typing import Any, get_args
from uuid import UUID

import pytest

import networkio_asyncio
import networkio_proto
import networkio_threads
from networkio_proto import Config, Limits, MsgpackCodec, errors, events
from networkio_proto.blocking import BlockingMessage, BlockingNode, BlockingPeer, BlockingReceipt

DOCS = Path(__file__).parents[2] / "docs"

#: ``| `name` | `default` | ...``
SETTING = re.compile(r"^\| `(\w+)` \| `(.+?)` \|", re.MULTILINE)


def section(page: str, title: str, level: str = "##") -> str:
    text = (DOCS / page).read_text(encoding="utf-8")
    start = text.index(f"\n{level} {title}\n")
    return text[start : text.find(f"\n{level} ", start + 1)]


def value_of(expression: str) -> object:
    """What a default in a table stands for: a literal, or a product of numbers."""
    tree = ast.parse(expression, mode="eval")
    allowed = (ast.Expression, ast.BinOp, ast.Mult, ast.Constant)
    assert all(isinstance(node, allowed) for node in ast.walk(tree)), expression
    return eval(compile(tree, expression, "eval"))


def settings(text: str) -> dict[str, object]:
    found = [(name, value_of(default)) for name, default in SETTING.findall(text)]
    assert len(dict(found)) == len(found), "a setting stands there twice"
    return dict(found)


def test_table_of_limits_is_the_dataclass() -> None:
    limits = Limits()
    assert settings(section("reference/config.md", "Limits")) == {
        item.name: getattr(limits, item.name) for item in fields(Limits)
    }


def test_tables_of_config_are_the_dataclass() -> None:
    text = (DOCS / "reference/config.md").read_text(encoding="utf-8").partition("\n## Limits\n")[0]
    config = Config()
    expected = {item.name: getattr(config, item.name) for item in fields(Config) if item.name != "limits"}
    assert settings(text) == expected
    assert list(settings(text)) == list(expected)  # in this order, too


def test_topic_on_timeouts_has_every_time_and_its_default() -> None:
    config = Config()
    times = {
        item.name: getattr(config, item.name)
        for item in fields(Config)
        if isinstance(getattr(config, item.name), float) or item.name == "session_expiry"
    }
    assert settings((DOCS / "topics/timeouts.md").read_text(encoding="utf-8")) == times


def test_topic_on_memory_says_the_defaults() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) (KiB|MiB|GiB) \|", (DOCS / "topics/memory.md").read_text(), re.MULTILINE)
    assert len(rows) == 6
    for name, number, unit in rows:
        assert getattr(Config(), name) == int(number) * 1024 ** (1 + ("KiB", "MiB", "GiB").index(unit)), name


def leaves(cls: type[Exception]) -> set[str]:
    """The errors of a family, without the family."""
    return {found.__name__ for name in errors.__all__ if issubclass(found := _class(name), cls) and found is not cls}


def _class(name: str) -> type[Any]:
    found = getattr(errors, name)
    return found if isinstance(found, type) else type(None)


@pytest.mark.parametrize(
    ("title", "family"),
    [
        ("Usage", errors.UsageError),
        ("Connections", errors.ConnectionFailure),
        ("Deliveries", errors.DeliveryFailure),
        ("Journals", errors.JournalError),
    ],
)
def test_every_error_is_in_its_table(title: str, family: type[Exception]) -> None:
    rows = re.findall(r"^\| `(\w+)`(?: \(an? `(\w+)`\))? \|", section("reference/errors.md", title), re.MULTILINE)
    assert len(rows) == len(dict(rows))
    assert {name for name, _ in rows} == leaves(family)
    for name, also in rows:
        builtin = [base.__name__ for base in _class(name).__mro__ if base.__module__ == "builtins"]
        assert not also or builtin[0] == also
        assert bool(also) == (builtin[0] not in ("Exception", "BaseException")), name


def test_every_notice_is_in_the_table_with_its_facts() -> None:
    page = (DOCS / "reference/notices.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| .*? \| (.*) \|$", page, re.MULTILINE))
    assert set(rows) == {cls.__name__ for cls in get_args(events.Event)}
    for cls in get_args(events.Event):
        named = re.findall(r"`(\w+)`", rows[cls.__name__])
        assert {item.name for item in fields(cls)} <= set(named), cls


def test_every_type_is_in_the_table_of_payloads() -> None:
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", (DOCS / "reference/payload.md").read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    values: list[object] = [
        None, True, "s", b"b", 7, 1.5, 1j, Decimal(1), UUID(int=1), [1], (1,), {1: 2}, {1}, frozenset({1}),
        date(2030, 1, 1), time(1), datetime(2030, 1, 1), timedelta(1),
    ]
    codec = MsgpackCodec()
    for value in values:
        again = codec.decode(codec.encode(value))
        assert (again, type(again)) == (value, type(value))
    assert named == {type(value).__name__ for value in values}
    assert codec._carried == {type(value) for value in values}, "the codec carries a type that the test does not know"
    assert NoneType.__name__ in named
    assert Enum.__name__ not in named


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


#: what a driver needs of the shared handles and keeps for itself; not for applications
DRIVERS = {
    "Node": {
        "abandon", "alive", "arrive", "begin", "begin_serving", "breathe", "breathless", "call", "carry_out",
        "changing", "check_address", "check_open", "check_unserved", "check_waiting", "connecting", "dial", "dialled",
        "dialling", "drain_time", "due", "emptying", "end_serving", "ending", "enter", "fail", "finding_room", "forked",
        "give_back", "gone", "handy", "leave", "listening", "log", "looking", "loop", "make_link", "make_peer", "meet",
        "met", "now", "nudge", "opened_by", "payload", "peer_if_known", "peer_within", "prepare", "receipts",
        "request_number", "restore", "run", "serving", "start", "stop", "store_in", "take_back", "tick", "token",
        "unlink", "visit", "wake", "wake_unwritten", "wake_watchers",
    },
    "Peer": {
        "accept_or_none", "accept_within", "accepting", "draining", "handling", "iterate", "iteration_over", "judged",
        "read_out", "read_plain", "reading", "receiving", "room", "serve", "serving", "take", "take_or_none",
        "waiting_for", "wake", "wake_everybody", "wake_unwritten",
    },
    "Message": {
        "check_held", "committed", "finish", "handled", "inbox", "peer", "reserve", "undecodable", "unreserve",
    },
    "Receipt": {"done", "peer", "refusal", "refused", "sequence"},
    "Listener": {"abandon", "accept_directly", "accept_on", "accepted", "failed"},
}


@pytest.mark.parametrize("adapter", [networkio_asyncio, networkio_threads], ids=["asyncio", "threads"])
@pytest.mark.parametrize("name", DRIVERS)
def test_every_method_is_in_the_reference(adapter: ModuleType, name: str) -> None:
    cls = getattr(adapter, name)
    page = (DOCS / "reference" / f"{adapter.__name__.removeprefix('networkio_')}.md").read_text(encoding="utf-8")
    listed = re.findall(rf"^\.\. auto\w+:: {adapter.__name__}\.{name}\.(\w+)$", page, re.MULTILINE)
    assert len(listed) == len(set(listed))
    instance = {"addresses"} if name == "Listener" else set()
    assert set(listed) | (DRIVERS[name] & public(cls)) == public(cls) | instance
    assert not set(listed) & DRIVERS[name]


def test_adapters_have_the_same_names() -> None:
    """But for leaving, which is ``aclose`` on an event loop, as everybody there calls it."""
    for name in DRIVERS:
        sides = [public(getattr(adapter, name)) - DRIVERS[name] for adapter in (networkio_asyncio, networkio_threads)]
        assert {"close" if each == "aclose" else each for each in sides[0]} | {"addresses"} == sides[1] | {"addresses"}
    assert sorted(networkio_asyncio.__all__) == sorted(networkio_threads.__all__)
    assert set(networkio_proto.__all__) <= set(networkio_asyncio.__all__)


@pytest.mark.parametrize("cls", [BlockingNode, BlockingPeer, BlockingMessage, BlockingReceipt])
def test_everything_public_has_a_docstring(cls: type) -> None:
    for name in public(cls):
        found = getattr(cls, name)
        assert getattr(found, "__doc__", None) or not callable(found), name


def test_every_page_is_reached() -> None:
    trees = re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(encoding="utf-8"), re.DOTALL)
    listed = {line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")}
    there = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")} - {"index"}
    assert listed == {page for page in there if not page.startswith("_build")}
