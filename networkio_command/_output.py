"""Where ``listen`` puts messages: standard output, or the end of a file that whole lines are in.

Theory of operation
-------------------
What :meth:`Output.write` returned from is with the operating system, and no end of this process can take it back: only
then a message is acknowledged.  A process that is killed in between leaves lines that will come again, never a hole.

A killed process, or a full disk, may leave a part of a line at the end of a file.  The message that it was the
beginning of was not acknowledged and comes again, so that part is cut off: at once if we are still here to do it, else
when the file is opened the next time.

With a journal, the mark of a file is where its messages are acknowledged to.  A batch is written, synced, and marked in
the transaction that acknowledges it.  Whatever stands behind the mark when the file is opened is no acknowledged
message, and is cut off, however whole it looks.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress

from ._marks import Mark, Place

__all__ = ["Output"]

_BLOCK = 64 * 1024


class Output:
    """A descriptor that takes batches whole.  ``lines``: an unfinished line at its end is cut off.

    ``mark`` is behind what is written, if it is a file.
    """

    def __init__(self, path: str | None, *, lines: bool) -> None:
        """Open it; raises OSError."""
        self._descriptor = sys.stdout.fileno() if path is None else _open(path)
        self._own = path is not None
        self._end: int | None = None
        #: how many bytes, of an unfinished line or behind the mark, were cut off
        self.cut = 0
        self.mark: Mark | None = None
        if path is not None and stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            self._end = os.fstat(self._descriptor).st_size
            if lines:
                self._cut_unfinished_line(self._end)

    def resume(self, place: Place, kept: tuple[int, bytes] | None) -> None:
        """Go on at the mark that is kept, else at the end; does nothing unless it is a file.

        Raises CommandError if it is not the file that was marked, OSError.
        """
        if self._end is None:
            return
        self.mark = Mark.at(self._descriptor, self._end) if kept is None else place.find(self._descriptor, kept)
        if self.mark.length < self._end:
            self.cut += self._end - self.mark.length
            self._end = self.mark.length
            os.ftruncate(self._descriptor, self._end)
        os.fsync(self._descriptor)
        _sync_directory(place.directory)

    @property
    def is_terminal(self) -> bool:
        """Does somebody look at it?"""
        return os.isatty(self._descriptor)

    def write(self, data: bytes) -> None:
        """Hand all of it to the operating system; raises OSError, and then none of it is in the file."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            if self._end is not None:
                os.ftruncate(self._descriptor, self._end)
            raise
        if self._end is not None:
            self._end += len(data)
        if self.mark is not None:
            os.fsync(self._descriptor)
            self.mark = self.mark.after(data)

    def close(self) -> None:
        """Let go of the file."""
        if self._own:
            os.close(self._descriptor)

    def _cut_unfinished_line(self, size: int) -> None:
        end = size
        while end:
            start = max(0, end - _BLOCK)
            os.lseek(self._descriptor, start, os.SEEK_SET)
            feed = os.read(self._descriptor, end - start).rfind(b"\n")
            if feed >= 0:
                end = start + feed + 1
                break
            end = start
        if end < size:
            os.ftruncate(self._descriptor, end)
            self.cut = size - end
        self._end = end


def _sync_directory(path: str) -> None:
    """A new file's name is on disk, too, where directories can be synced."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _open(path: str) -> int:
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        regular = True
    how = os.O_RDWR if regular else os.O_WRONLY
    return os.open(path, how | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
