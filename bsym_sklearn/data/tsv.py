"""Tab-separated tables as BIDS writes them: "n/a" is missing, numbers are numbers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bsym_sklearn.data.recording import MISSING_NUMBERS
from bsym_sklearn.exceptions import BrainDataError

_NAMES = {"\t": "tab", ",": "comma"}
# BIDS, pandas and R write these. "None" may be a class, as of depression.
_MISSING = {"", "n/a", "nan"}
_MISSING_OF_R = "NA"


def read_tsv(path: Path, *, caller: str, separator: str = "\t") -> pd.DataFrame:
    """Read every cell as text; a row that is too long or not text raises."""
    try:
        if b"\0" in path.read_bytes():  # no path can hold one, and pandas keeps them
            raise ValueError("a zero byte")
        # header=None: with a header pandas takes a first cell too many for an index
        table = pd.read_csv(
            path,
            sep=separator,
            dtype=str,
            header=None,
            keep_default_na=False,
            encoding="utf-8-sig",
        )
    except ValueError as error:
        raise BrainDataError(
            f"{caller} needs a {_NAMES[separator]}-separated table in '{path}'. Got "
            f"one that cannot be read ({error}). Write it with "
            f"DataFrame.to_csv(sep={separator!r})."
        ) from error
    swallowed = table.map(
        lambda cell: _holds_rows(str(cell), separator, table.shape[1])
    )
    if swallowed.any(axis=None):
        row = int(swallowed.any(axis=1).idxmax())
        raise BrainDataError(
            f"{caller} needs quotes that open and close in one cell of '{path}'. Got a "
            f"cell in row {row} that goes on in the next row. Remove the quotes."
        )
    names = [str(name).strip() for name in table.iloc[0]]
    if len(set(names)) < len(names):
        raise BrainDataError(
            f"{caller} needs columns of different names in '{path}'. Got {names}. "
            "Rename or remove one."
        )
    return table.iloc[1:].set_axis(names, axis=1).reset_index(drop=True)


def with_none(column: pd.Series) -> list[str | None]:
    """Return stripped texts, None for what BIDS, pandas and R write for missing."""
    texts = ("" if text is None else str(text).strip() for text in column)
    return [
        None if text.lower() in _MISSING or text == _MISSING_OF_R else text
        for text in texts
    ]


def parse_covariate(column: pd.Series) -> pd.Series:
    """Return numbers if all that is present is a number, else text and None.

    Among numbers, "None" and "null" are missing ones too.
    """
    cells = with_none(column)
    words = [cell for cell in cells if cell is not None]
    present = [cell for cell in words if cell.lower() not in MISSING_NUMBERS]
    is_code = any(cell[:1] == "0" and cell[1:2].isdigit() for cell in present)
    no_numbers = not present and bool(words)
    if column.name != "participant_id" and not is_code and not no_numbers:
        numbers = pd.to_numeric(pd.Series(cells, dtype=object), errors="coerce")
        if numbers.notna().sum() == len(present):
            return numbers.set_axis(column.index)
    return pd.Series(cells, index=column.index, dtype=object)


def _holds_rows(cell: str, separator: str, n_columns: int) -> bool:
    """Say if a cell goes from a quote in one row to a quote in another."""
    n_breaks = cell.count("\n")
    return n_breaks > 0 and cell.count(separator) == n_breaks * (n_columns - 1) > 0
