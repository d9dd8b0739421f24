"""The lock file beside a journal: one node at a time, and whoever comes second is told who holds it.

Theory of operation
-------------------
``PATH.lock`` is locked with ``flock`` (on Windows a byte far behind its end is), and holds the pid of its owner as
text.  The lock belongs to the open file, not to the process: a second node of the same process does not get it, and the
operating system takes it back when the process dies, however it dies.  So the file is never deleted, and one that was
left behind blocks nobody.  A forked child closes its copy: else it would hold the lock of a dead parent.  Until
it does, the lock is taken back by unlocking only, not by closing.
"""

from __future__ import annotations

import os
import sys
import weakref

from networkio_proto.errors import JournalFailed, JournalLocked

__all__ = ["LockFile"]

#: where Windows locks: a locked byte cannot be read, and the pid is to be
_FAR = 2**30


class LockFile:
    """The lock of one journal; taken when this returns.  Raises JournalLocked, JournalFailed."""

    def __init__(self, journal: str) -> None:
        self.path = journal + ".lock"
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        except OSError as error:
            raise JournalFailed(f"the lock file {self.path} cannot be opened: {error.strerror}") from error
        try:
            _lock(self._file)
        except OSError as error:
            owner = self._owner()
            os.close(self._file)
            if isinstance(error, (BlockingIOError, PermissionError)):
                raise JournalLocked(
                    f"the journal {journal} is in use by {owner}; give each node a journal of its own, or stop that one"
                ) from error
            raise JournalFailed(f"the lock file {self.path} cannot be locked: {error.strerror}") from error
        _held.add(self)
        try:
            os.ftruncate(self._file, 0)
            os.write(self._file, b"%d\n" % os.getpid())
        except OSError:  # the disk is full: whoever comes second is told less
            pass

    def _owner(self) -> str:
        text = os.read(self._file, 20).strip()
        if text == b"%d" % os.getpid():
            return f"another node of this process (pid {os.getpid()})"
        return f"the process {text.decode()}" if text.isdigit() else "another process"

    def release(self) -> None:
        """Give it back, though a child that was forked just now may have a copy of it still; once more does nothing."""
        if self._file >= 0:
            _unlock(self._file)
        self.forget()

    def forget(self) -> None:
        """Close this process's copy."""
        file, self._file = self._file, -1
        _held.discard(self)
        if file >= 0:
            os.close(file)


_held: weakref.WeakSet[LockFile] = weakref.WeakSet()


def _forked() -> None:
    for lock in list(_held):
        lock.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        os.lseek(file, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(file, 0, os.SEEK_SET)

    def _unlock(file: int) -> None:
        """Closing it does."""

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
