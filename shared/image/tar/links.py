"""Which inodes have been listed already under another name: as many as there are, on disk.

Only inodes with several names are asked for; a table of SQLite keeps a few MiB of them in memory
and spills the rest into a file without a name, for whoever may open files.
"""

import sqlite3
from types import TracebackType
from typing import Final, Self

_CACHE_KIB: Final = 32 << 10
_SIGNED: Final = 1 << 64


class Links:
    """Finds the first name of an inode. Used by one thread."""

    def __init__(self, *, on_disk: bool = True) -> None:
        # "" is a database on disk that ends with its connection.
        self._table = sqlite3.connect("" if on_disk else ":memory:", isolation_level=None)
        self._table.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._table.execute("PRAGMA journal_mode = OFF")
        self._table.execute(
            "CREATE TABLE names (device INTEGER, place INTEGER, path BLOB,"
            " PRIMARY KEY (device, place)) WITHOUT ROWID"
        )
        self._table.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._table.close()

    def first_name(self, device: int, place: int, path: bytes) -> bytes | None:
        """The name that this inode was seen by before; None if this is the first."""
        key = (_signed(device), _signed(place))
        found = self._table.execute(
            "SELECT path FROM names WHERE device = ? AND place = ?", key
        ).fetchone()
        if found is not None:
            first: bytes = found[0]
            return first
        self._table.execute("INSERT INTO names VALUES (?, ?, ?)", (*key, path))
        return None


def _signed(number: int) -> int:
    """SQLite's integers have a sign."""
    return number - _SIGNED if number >= _SIGNED >> 1 else number
