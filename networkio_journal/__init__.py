"""The durable store of a node: one SQLite file, which holds what must outlive the process.

Theory of operation
-------------------
:class:`SQLiteJournal` (``journal``) is the store in a thread of its own.  ``store`` makes, opens and writes the file,
``load`` reads and checks it, ``rows`` knows its tables, and ``state`` what a history of the core's records comes to.
``inspection`` looks into a file without a node.  ``lock`` keeps a second node away; ``defects`` lists the versions of
SQLite that can damage a file.
"""

from __future__ import annotations

from .journal import SQLiteJournal

__all__ = ["SQLiteJournal"]
