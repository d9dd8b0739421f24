"""What an application's function may do to the journal's database, and what not.

Theory of operation
-------------------
SQLite asks an authorizer about everything that a statement is going to do, when the statement is prepared.  While the
function of a transaction runs, a :class:`Guard` answers: the tables of networkio are not written, the transaction is
neither ended nor begun, no other file is attached (in WAL mode a transaction over several files is atomic in each of
them only), and nothing is set by a PRAGMA that would outlive the function.  SQLite then raises an error that says just
"not authorized"; the guard remembers why.
"""

from __future__ import annotations

import sqlite3
from typing import Final

__all__ = ["Guard"]

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
