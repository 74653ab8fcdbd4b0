"""Results of a campaign: one line of JSON per trial, at any time readable."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

Row = dict[str, Any]


class Trial(NamedTuple):
    """One thing to try: `run` gets an empty folder and returns what came out."""

    part: str
    number: int
    run: Callable[[Path], Row]


class Trials:
    """Rows in a file; what was there when the last run was stopped is kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []
        if path.exists():
            lines = path.read_text().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]
            self.rows = [json.loads(line) for line in whole]
            if len(whole) < len(lines):  # the last one was cut
                path.write_text("".join(whole))

    def has(self, part: str, number: int) -> bool:
        """Return whether a trial was done."""
        return any((row["part"], row["trial"]) == (part, number) for row in self.rows)

    def put(self, trial: Trial, row: Row) -> None:
        """Keep what came out of a trial."""
        row = {"part": trial.part, "trial": trial.number, **row}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)

    def of(self, part: str) -> list[Row]:
        """Return the rows of one part."""
        return [row for row in self.rows if row["part"] == part]

    def parts(self) -> Iterator[tuple[str, list[Row]]]:
        """Yield the rows of each part, in the order of their first."""
        for part in dict.fromkeys(row["part"] for row in self.rows):
            yield part, self.of(part)
