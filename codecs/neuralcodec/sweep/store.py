"""The record of a sweep: an SQLite file to which every row is written as soon as it is complete.

The file remains valid if the process is killed at any time, since SQLite commits are atomic.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd

from neuralcodec.sweep.plan import Key

Row = dict[str, Any]
"""The columns of `results.csv` by name, for one point on one clip."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    run INTEGER PRIMARY KEY, started TEXT NOT NULL, description TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS rows (
    point TEXT NOT NULL, clip TEXT NOT NULL, clip_digest TEXT NOT NULL,
    run INTEGER NOT NULL REFERENCES runs, failed INTEGER NOT NULL, contents TEXT NOT NULL,
    PRIMARY KEY (point, clip, clip_digest)
);
"""


class StoreError(OSError):
    """Raised if the record cannot be read or written, for example because the disk is full.

    Rows that were written before are safe.
    """


class Store:
    """Rows of a sweep on disk, by key, as a context manager.

    Args:
        path: the SQLite file, created if it does not exist.

    Raises:
        StoreError: by any method, if the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._run = 0
        with self._errors("open"):
            self._connection = sqlite3.connect(path)

    def __enter__(self) -> Self:
        try:
            with self._errors("use"):
                self._connection.executescript(_SCHEMA)
        except StoreError:
            self._connection.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    @contextmanager
    def _errors(self, task: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"cannot {task} {self.path}: {error}") from error

    def _write(self, statement: str, values: Iterable[tuple[Any, ...]]) -> None:
        with self._errors("write to"), self._connection:
            self._connection.executemany(statement, values)

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._errors("read"):
            return self._connection.execute(query, values).fetchall()

    def begin(self, started: str, description: dict[str, Any]) -> None:
        """Record a run: its start time and a description. Rows added later belong to it."""
        text = json.dumps(description, sort_keys=True)
        statement = "INSERT INTO runs (started, description) VALUES (?, ?)"
        self._write(statement, [(started, text)])
        ((self._run,),) = self._read("SELECT max(run) FROM runs")

    def add(self, rows: Iterable[tuple[Key, Row]]) -> None:
        """Write rows, all of them or none; an existing row with the same key is replaced."""
        values = [
            (*key, self._run, row["status"] != "ok", json.dumps(row, sort_keys=True))
            for key, row in rows
        ]
        self._write("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?)", values)

    def done(self, *, failed: bool = True) -> set[Key]:
        """Return the keys of all rows, without those of failed rows if `failed` is False."""
        query = "SELECT point, clip, clip_digest FROM rows WHERE NOT failed OR ?"
        return {Key(*row) for row in self._read(query, (failed,))}

    def table(self, keys: Iterable[Key], columns: Iterable[str]) -> pd.DataFrame:
        """Return the existing rows with these keys, in this order, with these columns."""
        query = "SELECT point, clip, clip_digest, contents FROM rows"
        found = {Key(*row[:3]): row[3] for row in self._read(query)}
        rows = [json.loads(found[key]) for key in keys if key in found]
        return pd.DataFrame(rows, columns=list(columns))
