"""Files of keys: what is made is read, by whoever it names, and what is not private or makes no sense is refused."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from networkio_keys import append_key, key_line, load_keys, parse_keys
from networkio_proto import PSK, ConfigurationError

posix = pytest.mark.skipif(os.name != "posix", reason="modes and owners of files are those of POSIX")


def test_a_key_is_made_for_two_and_read_by_both(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    append_key(path, key_line("a", "b"))
    append_key(path, key_line("c", "a", "k7"))
    assert path.stat().st_mode & 0o777 == 0o600
    at_a, at_b = load_keys(path, "a"), load_keys(path, "b")
    assert set(at_a) == {"b", "c"}
    assert at_a["b"] == at_b["a"]
    assert len(at_a["b"]["k1"]) == 32
    assert list(at_a["c"]) == ["k7"]
    PSK(at_a)
    assert len({key_line("a", "b") for _ in range(10)}) == 10


def test_the_lowest_line_is_the_newest_key() -> None:
    lines = ["# keys of the office", "", key_line("a", "b", "old"), key_line("b", "a", "new"), key_line("x", "y")]
    keys = parse_keys("\n".join(lines), "a")
    assert list(keys) == ["b"]
    assert list(keys["b"]) == ["new", "old"]
    assert PSK(keys).key_id("b") == "new"
    again = parse_keys("\n".join([*lines, key_line("a", "b", "old")]), "a")
    assert list(again["b"]) == ["old", "new"]
    assert again["b"]["old"] != keys["b"]["old"]


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (("a", "a"), "shared by two"),
        (("a", "not an id"), "peer id"),
        (("a", "b", ""), "a key id is"),
        (("a", "b", "two words"), "a key id is"),
        (("a", "b", "é"), "a key id is"),
        (("a", "b", "k" * 65), "a key id is"),
    ],
)
def test_a_key_for_nobody_is_not_made(ids: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        key_line(*ids)


SECRET = base64.b64encode(bytes(range(32))).decode()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a b k1", "a line has two peer ids, a key id and a key, not 3 words"),
        (f"a b k1 {SECRET} more", "not 5 words"),
        (f"a a k1 {SECRET}", "one stands there twice"),
        (f"a b! k1 {SECRET}", "the first two words are to be peer ids"),
        (f"a b k1 {SECRET[:-3]}!==", "the key is not base64"),
        ("a b k1 AAAA", "the key has less than 16 bytes"),
    ],
)
def test_a_line_that_is_none_is_told_by_its_number_and_not_shown(line: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    append_key(path, f"# comment\n{line}")
    with pytest.raises(ConfigurationError, match=f"keys, line 2: .*{words}") as caught:
        load_keys(path, "a")
    assert SECRET[:8] not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_without_a_key_of_the_node_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    append_key(path, key_line("a", "b"))
    with pytest.raises(ConfigurationError, match="has no key of c; 'networkio genkey' makes one"):
        load_keys(path, "c")
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        load_keys(tmp_path / "missing", "a")
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="no text in ASCII"):
        load_keys(path, "a")


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    """Attack 47."""
    path = tmp_path / "keys"
    append_key(path, key_line("a", "b"))
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="others may read the key file"):
        load_keys(path, "a")
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="others may read the key file"):
        append_key(path, key_line("a", "c"))
    assert path.read_bytes() == before


@posix
def test_a_link_or_no_plain_file_is_refused(tmp_path: Path) -> None:
    """Attack 47."""
    path, link = tmp_path / "keys", tmp_path / "link"
    append_key(path, key_line("a", "b"))
    link.symlink_to(path)
    with pytest.raises(OSError, match="symbolic link"):
        append_key(link, key_line("a", "c"))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_keys(link, "a")
    with pytest.raises(ConfigurationError, match="no plain file"):
        load_keys(os.devnull, "a")


@posix
def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    append_key(path, key_line("a", "b"))
    if path.stat().st_uid == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        load_keys(path, "a")


def test_a_line_is_a_line_of_its_own_also_behind_one_that_somebody_left_unfinished(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    append_key(path, key_line("a", "b", "k1"))
    path.write_text(path.read_text().rstrip("\n"))
    append_key(path, key_line("a", "b", "k2"))
    assert list(load_keys(path, "a")["b"]) == ["k2", "k1"]


@posix
def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    with pytest.raises(ConfigurationError, match="no plain file"):
        load_keys(path, "a")
    with pytest.raises(ConfigurationError, match="no plain file"):
        append_key(path, key_line("a", "b"))
