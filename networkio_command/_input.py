"""What there is to send: bytes from a file or from standard input, as lines or as chunks.

Theory of operation
-------------------
A thread reads, a few chunks ahead; so a command that waits for input still notices Ctrl-C, and a file of any size needs
as much memory as those few chunks.  The thread reads the descriptor itself: an interpreter that exits would wait for
the lock of ``sys.stdin``.

How far the input has become messages is its mark, which a journal may keep: the next process begins there.

A line ends at a line feed and nowhere else, so whatever stands before it, a carriage return included, goes along.  A
line that is UTF-8 becomes a str, any other one bytes; either way the bytes that the receiver writes are the same.
"""

from __future__ import annotations

import errno
import json
import os
import queue
import stat
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from networkio_proto.config import Limits

from ._marks import Mark
from ._terminal import CommandError

__all__ = ["Chunks", "Documents", "Lines", "Source", "open_input"]

_CHUNK = 64 * 1024
_CHUNKS_AHEAD = 8

#: a line is one message, and this is the most that one can be
_LONGEST_LINE = Limits().message

#: where a file begins
_BEGIN = Mark()

Line = str | bytes


def open_input(path: str | None) -> tuple[int, int | None]:
    """A descriptor to read, and how many bytes are in it if that is known; raises OSError."""
    if path is None or path == "-":
        return 0, None
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    status = os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):
        os.close(descriptor)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return descriptor, status.st_size or None


class Source(ABC):
    """Messages to send, in batches; ``mark`` is where the descriptor stands."""

    def __init__(self, descriptor: int, chunk: int = _CHUNK, mark: Mark = _BEGIN) -> None:
        self._descriptor = descriptor
        self._chunk = chunk
        self._chunks: queue.Queue[bytes | OSError] = queue.Queue(_CHUNKS_AHEAD)
        #: nothing follows
        self.ended = False
        #: bytes that became messages
        self.position = mark.length
        #: before the last batch
        self._mark = mark
        #: what the last batch was made of
        self._taken = b""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                data: bytes | OSError = os.read(self._descriptor, self._chunk)
            except OSError as error:
                data = error
            self._chunks.put(data)
            if not data or isinstance(data, OSError):
                return

    def next(self, timeout: float) -> list[Any]:
        """The next messages; none if there is nothing within ``timeout`` seconds, or if the input has ``ended``.

        Raises CommandError if the input cannot be read or understood; that ends it.
        """
        if self.ended:
            return []
        try:
            data = self._chunks.get(timeout=timeout) if timeout else self._chunks.get_nowait()
        except queue.Empty:
            return []
        try:
            if isinstance(data, OSError):
                raise CommandError(f"the input cannot be read: {data.strerror}")
            return self._messages(data)
        except CommandError:
            self.ended = True
            raise

    def mark(self, count: int) -> Mark:
        """Where ``count`` messages of the last batch end."""
        return self._mark.after(self._first(count))

    def _first(self, count: int) -> bytes:
        """What the first messages of the last batch were made of."""
        return self._taken if count else b""

    def _take(self, data: bytes) -> None:
        """The next batch is made of these bytes."""
        self._mark, self._taken = self._mark.after(self._taken), data

    @abstractmethod
    def _messages(self, data: bytes) -> list[Any]:
        """What these bytes complete; no bytes are the end of the input, which this notes as ``ended``."""


class Chunks(Source):
    """Bytes as they come, cut into equal pieces; the last one may be shorter."""

    def __init__(self, descriptor: int, chunk: int, mark: Mark = _BEGIN) -> None:
        self._size = chunk
        self._rest = b""
        super().__init__(descriptor, chunk, mark)

    def _messages(self, data: bytes) -> list[bytes]:
        self.position += len(data)
        pieces, self._rest = self._rest + data, b""
        if not data:
            self.ended = True
            self._take(pieces)
            return [pieces] if pieces else []
        if len(pieces) < self._size:  # a pipe gives what it has
            self._rest = pieces
            return []
        self._rest = pieces[self._size :]
        self._take(pieces[: self._size])
        return [pieces[: self._size]]


class Lines(Source):
    """A message for each line, without its line feed."""

    def __init__(self, descriptor: int, mark: Mark = _BEGIN) -> None:
        self._rest: list[bytes] = []
        self._rest_size = 0
        super().__init__(descriptor, mark=mark)

    def _messages(self, data: bytes) -> list[Any]:
        self.position += len(data)
        whole, feed, rest = data.rpartition(b"\n")
        if feed:
            block = b"".join([*self._rest, whole])
            self._rest, self._rest_size = [], 0
        self._rest.append(rest)
        self._rest_size += len(rest)
        if self._rest_size > _LONGEST_LINE:
            raise CommandError(f"a line is longer than {_LONGEST_LINE >> 20} MiB; send such input with --raw")
        if feed:
            self._take(block + b"\n")
            return self._decoded(_split(block))
        if data:
            return []
        self.ended = True
        last = b"".join(self._rest)
        self._take(last)
        return self._decoded(_split(last)) if last else []

    def _first(self, count: int) -> bytes:
        lines = self._taken.split(b"\n", count)
        return self._taken[: len(self._taken) - len(lines[count])] if count < len(lines) else self._taken

    def _decoded(self, lines: list[Line]) -> list[Any]:
        return lines


class Documents(Lines):
    """A message for each line of JSON."""

    def __init__(self, descriptor: int, mark: Mark = _BEGIN) -> None:
        self._number = 0
        self._fault: CommandError | None = None
        super().__init__(descriptor, mark)

    def next(self, timeout: float) -> list[Any]:
        if self._fault is not None:
            fault, self._fault, self.ended = self._fault, None, True
            raise fault
        return super().next(timeout)

    def _decoded(self, lines: list[Line]) -> list[Any]:
        documents = []
        for line in lines:
            self._number += 1
            try:
                documents.append(json.loads(line, parse_constant=_no_constant))
            except (ValueError, RecursionError) as error:
                self._fault = CommandError(f"line {self._number} is not JSON: {error}")
                self.ended = False  # first comes what stands before it
                break
        return documents


def _no_constant(name: str) -> Callable[[], object]:
    raise ValueError(f"it has no {name}")


def _split(block: bytes) -> list[Line]:
    try:
        return list(block.decode().split("\n"))
    except UnicodeDecodeError:
        return [_text(line) for line in block.split(b"\n")]


def _text(line: bytes) -> Line:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line
