"""The results of speed.py: one row per measurement, kept in one CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, get_type_hints

from bsym_sklearn.files import write_atomically


class Row(NamedTuple):
    """One measurement, or (with a unit) one number.

    The first six columns name a row; no two rows have the same.
    """

    work: str
    variant: str
    R: int | None = None  # regions
    T: int | None = None  # time points
    B: int | None = None  # scans in a batch
    threads: int | None = None
    seconds_median: float | None = None
    q1: float | None = None  # quartiles of the seconds
    q3: float | None = None
    n: int | None = None  # timings, or points of a fitted line
    extra_mb: float | None = None  # peak during the work less what there was before
    ratio_to_reference: float | None = None  # its seconds by these
    memory_ratio_to_reference: float | None = None  # its extra memory by this
    value: float | None = None  # of what is not seconds
    unit: str = ""

    @property
    def key(self) -> tuple[str | int | None, ...]:
        """Return what names the row."""
        return self[:6]


class Table:
    """Rows in a file that is at any time whole; what is there is kept.

    Parameters
    ----------
    path : Path
        CSV file, read if it exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = read_rows(path) if path.exists() else []

    def has(self, keys: Iterable[Sequence[str | int | None]]) -> bool:
        """Return whether all rows of these names are there."""
        return {tuple(key) for key in keys} <= {row.key for row in self.rows}

    def put(self, rows: Sequence[Row]) -> None:
        """Add rows, or replace those of the same names; write the file."""
        new = {row.key: row for row in rows}
        kept = [new.pop(row.key, row) for row in self.rows]
        self.rows = [*kept, *new.values()]
        self._write()

    def drop_works(self, works: Iterable[str]) -> None:
        """Leave out every row of these works."""
        gone = set(works)
        self.rows = [row for row in self.rows if row.work not in gone]

    def _write(self) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(
            [f"{v:.6g}" if isinstance(v, float) else v for v in row]
            for row in self.rows
        )
        write_atomically(self.path, text.getvalue())
        self.rows = read_rows(self.path)  # as rounded there


def read_rows(path: Path) -> list[Row]:
    """Read what `Table` wrote."""
    types = get_type_hints(Row)
    with path.open(newline="") as file:
        return [
            Row(**{name: _parse(text, types[name]) for name, text in record.items()})
            for record in csv.DictReader(file)
        ]


def _parse(text: str, kind: object) -> str | int | float | None:
    """Return one cell of the file as the type of its column."""
    if kind is str:
        return text
    if not text:
        return None
    return int(text) if kind == (int | None) else float(text)
