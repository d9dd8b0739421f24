"""What an application's function may do to the journal's database, and what not.

Theory of operation
-------------------
SQLite asks an authorizer about everything that a statement is going to do, when the statement is prepared.  While the
function of a transaction runs, a :class:`Guard` answers: the tables of networkio are not written, the transaction is
neither ended nor begun, no other file is attached (in WAL mode a transaction over several files is atomic in each of
them only), and nothing is set by a PRAGMA that would outlive the function.  SQLite then raises an error that says just
"not authorized"; the guard remembers why.

One thing that ends a transaction nobody is asked about: a conflict that is resolved by ROLLBACK (``INSERT OR
ROLLBACK``, or so declared by a table or a trigger).  Whatever a function wrote after that would be on disk at once, by
itself.  So while its authorizer is set a :class:`Lent` connection looks before every statement whether the transaction
is still there.  No statement ends it and writes on, for a conflict is an error.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Final

from networkio_proto import UsageError

__all__ = ["ENDED", "Guard", "Lent"]

ENDED: Final = (
    "a statement of the function ended the transaction (a conflict resolved by ROLLBACK?), and so all of it was "
    "undone; let conflicts be resolved by ABORT, which is the default and undoes that statement alone"
)

#: every table of networkio begins so
_PREFIX: Final = "networkio_"

#: reading, as SQLite calls it
_READS: Final = {sqlite3.SQLITE_READ, sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}

#: of these the second name is a table too
_ON_A_TABLE: Final = {
    sqlite3.SQLITE_ALTER_TABLE,
    sqlite3.SQLITE_CREATE_INDEX,
    sqlite3.SQLITE_CREATE_TRIGGER,
    sqlite3.SQLITE_CREATE_TEMP_TRIGGER,
    sqlite3.SQLITE_DROP_INDEX,
    sqlite3.SQLITE_DROP_TRIGGER,
}

#: PRAGMAs whose argument is what they are about
_ABOUT: Final = {
    "foreign_key_check", "foreign_key_list", "index_info", "index_list", "index_xinfo", "table_info", "table_xinfo",
}  # fmt: skip


class Guard:
    """The authorizer of one function; ``refused`` says what it was kept from."""

    def __init__(self) -> None:
        self.refused = ""

    def __call__(
        self, action: int, first: str | None, second: str | None, database: str | None, inner: str | None
    ) -> int:
        why = self._why(action, first or "", second or "", second is not None)
        if not why:
            return sqlite3.SQLITE_OK
        self.refused = why
        return sqlite3.SQLITE_DENY

    def _why(self, action: int, first: str, second: str, argument: bool) -> str:
        if action in _READS:
            return ""
        if action == sqlite3.SQLITE_TRANSACTION:
            return f"{first} is not its own: the transaction ends when it returns, and is undone when it raises"
        if action == sqlite3.SQLITE_SAVEPOINT:
            return ""
        if action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH):
            return "no other file can be in a transaction that is on disk as a whole; keep the tables in this one"
        if action == sqlite3.SQLITE_PRAGMA:
            return f"PRAGMA {first} sets something for the journal too" if argument and first not in _ABOUT else ""
        for name in (first, second if action in _ON_A_TABLE else ""):
            if name.lower().startswith(_PREFIX):
                return f"{name} is networkio's; name tables of your own otherwise"
        return ""


class Lent(sqlite3.Connection):
    """A connection that executes nothing outside of the transaction in which it is lent to a function."""

    _lent = False

    def set_authorizer(self, authorizer_callback: Callable[..., int] | None) -> None:
        """Lent as long as there is one."""
        self._lent = authorizer_callback is not None
        super().set_authorizer(authorizer_callback)

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(factory or (_Cursor if self._lent else sqlite3.Cursor))

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        self.check()
        return super().execute(*arguments)

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:
        self.check()
        return super().executemany(*arguments)

    def executescript(self, *arguments: Any) -> sqlite3.Cursor:
        self.check()
        return super().executescript(*arguments)

    def blobopen(self, *arguments: Any, **options: Any) -> sqlite3.Blob:
        self.check()
        return super().blobopen(*arguments, **options)

    def check(self) -> None:
        """Raise UsageError if the function's transaction has ended."""
        if self._lent and not self.in_transaction:
            raise UsageError(ENDED)


class _Cursor(sqlite3.Cursor):
    """Looks first."""

    connection: Lent

    def execute(self, *arguments: Any) -> Any:
        self.connection.check()
        return super().execute(*arguments)

    def executemany(self, *arguments: Any) -> Any:
        self.connection.check()
        return super().executemany(*arguments)

    def executescript(self, *arguments: Any) -> Any:
        self.connection.check()
        return super().executescript(*arguments)
