"""What becomes of the bytes that come from a pipe, wherever it happens to break them off."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import pytest

from networkio_command._input import Chunks, Documents, Lines, Source
from networkio_command._terminal import CommandError
from tests.command.helpers import readers_joined


@contextmanager
def pipe() -> Iterator[tuple[int, IO[bytes]]]:
    """Its end to read, and its end to write; the number of the former is free again when nothing reads it any more."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", 0), readers_joined(), os.fdopen(writer, "wb", 0) as file:
        yield reader, file


def after(source: Source, writer: IO[bytes], *pieces: bytes) -> list[list[Any]]:
    """The messages that each piece completes, and those that the end does."""
    batches = []
    for piece in pieces:
        writer.write(piece)
        batches.append(source.next(20))
    writer.close()
    batches.append(source.next(20))
    assert source.ended
    assert source.next(0) == []
    return batches


def test_lines_end_at_line_feeds_only() -> None:
    with pipe() as (reader, writer):
        pieces = (b"a\r\nb", b"\x0cc\xe2\x80", b"\xa8\n\n\x85\xff\nx\r", b"\ny")
        assert after(Lines(reader), writer, *pieces) == [["a\r"], [], ["b\x0cc\u2028", "", b"\x85\xff"], ["x\r"], ["y"]]


def test_chunks_are_whole_but_the_last() -> None:
    with pipe() as (reader, writer):
        assert after(Chunks(reader, 4), writer, b"abc", b"de", b"f", b"ghi") == [[], [b"abcd"], [], [b"efgh"], [b"i"]]
    with pipe() as (reader, writer):
        assert after(Chunks(reader, 4), writer, b"abcd") == [[b"abcd"], []]


def test_nothing_yet_is_not_the_end() -> None:
    with pipe() as (reader, writer):
        source = Lines(reader)
        assert source.next(0.01) == []
        assert not source.ended
        assert after(source, writer, b"a\n") == [["a"], []]


@pytest.mark.parametrize(
    ("data", "before"), [(b"1\n[\n3\n", [1]), (b"1\n[", [1]), (b"1\n2\n\xff", [1, 2]), (b"\n", [])]
)
def test_documents_before_a_fault_come_first(data: bytes, before: list[int]) -> None:
    with pipe() as (reader, writer):
        writer.write(data)
        writer.close()
        source = Documents(reader)
        got: list[int] = []
        complaint = ""
        while not source.ended:
            try:
                got += source.next(20)
            except CommandError as error:
                complaint = str(error)
        assert got == before
        assert complaint.startswith(f"line {len(before) + 1} is not JSON: ")
