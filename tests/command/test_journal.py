"""``networkio journal``: what a journal holds, as people and as programs read it."""

from __future__ import annotations

import base64
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from networkio_threads import Node
from tests.command.helpers import run

WAITING: list[Any] = [{"text": "Grüße"}, [1, 2.5, None], date(2026, 1, 2), {"k": (1, 2)}, float("nan"), "last"]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Two of eight messages were read by b, and three of it."""
    path = tmp_path / "a.db"
    with Node("a", journal=path) as a, Node("b") as b:
        to_b = a.connect("127.0.0.1", b.listen("127.0.0.1", 0).port, "b", 10)
        for item in ("one", "two"):
            receipt = to_b.send(item)
            assert b.peer("a").read(10) == item
            receipt.read(10)
        for number in range(3):
            answer = b.peer("a").send(number)
            assert to_b.read(10) == number
            answer.read(10)
        b.close(0)
        for item in WAITING:
            to_b.send(item, headers={"n": 1} if item == "last" else None)
        to_b.send(b"\x00\xff", raw=True)
        a.close(0)
    return path


def test_show_tells_what_waits_and_how_far_each_direction_came(journal: Path) -> None:
    before = journal.read_bytes()
    result = run("journal", "show", journal)
    assert (result.returncode, result.stderr) == (0, b"")
    first, name, to_it, from_it = result.stdout.decode().splitlines()
    assert first.startswith(f"{journal}: the journal of a; ")
    assert first.endswith("version 2; closed in order")
    assert name == "b"
    assert to_it.startswith("  to it:   7 messages pending (")
    assert " 3 to 9, the oldest for " in to_it
    assert to_it.endswith("; accepted up to 9, over up to 2")
    assert from_it.startswith("  from it: read up to 3")
    facts = json.loads(run("journal", "show", "--json", journal).stdout)
    assert (facts["node"], facts["closed"], facts["log_bytes"], facts["bytes"]) == ("a", True, 0, len(before))
    (peer,) = facts["peers"]
    assert {name: peer["outbox"][name] for name in ("pending", "first", "last", "accepted", "over")} == {
        "pending": 7, "first": 3, "last": 9, "accepted": 9, "over": 2
    }
    assert 0 <= peer["outbox"]["age"] < 100
    assert [each["read"] for each in peer["inboxes"]] == [3]
    assert journal.read_bytes() == before


def test_export_writes_what_json_can_carry_as_it_is_and_the_rest_as_base64(journal: Path) -> None:
    result = run("journal", "export", journal)
    assert (result.returncode, result.stderr) == (0, b"")
    lines = [json.loads(line) for line in result.stdout.decode().splitlines()]
    assert [(line["peer"], line["sequence"]) for line in lines] == [("b", number) for number in range(3, 10)]
    assert [line.get("data") for line in lines] == [WAITING[0], WAITING[1], None, None, None, "last", None]
    assert ["base64" in line for line in lines] == [False, False, True, True, True, False, True]
    assert base64.b64decode(lines[-1]["base64"]) == b"\x00\xff"
    assert lines[-2]["headers"] == {"n": 1}


def test_verify_is_content_with_a_whole_journal_and_lists_what_is_damaged(journal: Path) -> None:
    result = run("journal", "verify", journal)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == b"every page, row and checksum is as it was written\n"
    data = journal.read_bytes()
    journal.write_bytes(data.replace(b"Gr\xc3\xbc\xc3\x9fe", b"Gr\xc3\xbc\xc3\x9fE"))
    result = run("journal", "verify", journal)
    assert (result.returncode, result.stdout.decode()) == (
        1, "networkio_message: message 3 to peer 1 does not fit its checksum\n"
    )
    result = run("journal", "export", journal)
    assert result.returncode == 1
    assert b"is damaged: message 3 to b does not fit its checksum" in result.stderr


def test_what_is_no_journal_or_is_in_use_is_said(journal: Path, tmp_path: Path) -> None:
    with Node("a", journal=journal):
        result = run("journal", "show", journal)
    assert (result.returncode, result.stdout) == (1, b"")
    assert b"is in use by the process" in result.stderr
    result = run("journal", "verify", tmp_path / "none")
    assert result.returncode == 1
    assert result.stderr.decode() == f"networkio: {tmp_path / 'none'}: No such file or directory\n"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.db", "a.db.lock"]
    assert run("journal", "verify", "--json", journal).returncode == 1


def test_what_a_durable_inbox_keeps_is_shown_exported_and_verified(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    with Node("b", journal=path, durable_inbox=True) as b, Node("a") as a:
        to_b = a.connect("127.0.0.1", b.listen("127.0.0.1", 0).port, "b", 10)
        to_b.send("read").received(10)
        assert b.peer("a").read(10) == "read"
        to_b.send({"n": 1}, headers={"k": "v"})
        to_b.send(b"\x00\xff", raw=True).received(10)
        a.close(0)
    result = run("journal", "show", path)
    (from_it,) = [line for line in result.stdout.decode().splitlines() if "from it" in line]
    assert from_it.startswith("  from it: read up to 1; 2 messages kept to be read (")
    (peer,) = json.loads(run("journal", "show", "--json", path).stdout)["peers"]
    assert (peer["kept"]["messages"], peer["inboxes"][0]["received"], peer["inboxes"][0]["read"]) == (2, 3, 1)
    assert 0 <= peer["kept"]["age"] < 100
    first, second = (json.loads(line) for line in run("journal", "export", path).stdout.decode().splitlines())
    assert (first["from"], first["sequence"], first["data"], first["headers"]) == ("a", 2, {"n": 1}, {"k": "v"})
    assert base64.b64decode(second["base64"]) == b"\x00\xff"
    assert run("journal", "verify", path).returncode == 0
