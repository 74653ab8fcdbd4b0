"""What a page is made of: sections of facts, notes, tables, pictures and code.

Everything is plain text; the template escapes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.utils import resample

from bsym_sklearn.analysis.tables import format_p

MAX_ROWS = 500  # of a table: more are slow to sort on a phone
LONG = 12  # rows from which a table scrolls within its frame
NOTHING = "\N{EN DASH}"


@dataclass(frozen=True)
class Cell:
    """Text of a table, and the number that it is sorted by ("" if there is none)."""

    text: str
    key: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells under names; columns of numbers are marked."""

    caption: str
    columns: tuple[str, ...]
    are_numbers: tuple[bool, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    kind: ClassVar[str] = "table"

    @property
    def is_long(self) -> bool:
        """Whether the table scrolls within its frame."""
        return len(self.rows) > LONG


@dataclass(frozen=True)
class Picture:
    """An image as a data URI; `on_paper` keeps its colours where the page is dark."""

    uri: str
    width: int  # CSS pixels
    height: int
    alt: str
    caption: str
    on_paper: bool = False
    kind: ClassVar[str] = "picture"


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side where there is room."""

    pictures: tuple[Picture, ...]
    kind: ClassVar[str] = "pictures"


@dataclass(frozen=True)
class Facts:
    """Names with a short value each."""

    pairs: tuple[tuple[str, str], ...]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Heading:
    """What the next parts are about."""

    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Note:
    """Sentences; those of a warning stand out."""

    sentences: tuple[str, ...]
    is_warning: bool = False
    kind: ClassVar[str] = "note"


@dataclass(frozen=True)
class Code:
    """Lines to copy."""

    text: str
    caption: str
    kind: ClassVar[str] = "code"


Part = Table | Pictures | Facts | Heading | Note | Code


@dataclass(frozen=True)
class Section:
    """A chapter of the page, which says what it shows and what it does not."""

    key: str  # of the link to it
    title: str
    shows: str
    not_shown: str
    parts: tuple[Part, ...]


def make_table(
    frame: pd.DataFrame,
    caption: str,
    *,
    formats: Mapping[str, str | Callable[[Any], str]] | None = None,
    note: str = "",
) -> Table:
    """Return a table of the first rows of a DataFrame, without its index.

    Parameters
    ----------
    frame : DataFrame of shape (n_rows, n_columns)
        Numbers, text or anything with a text.
    caption : str
        What the table is.
    formats : mapping of str to (str or callable) or None, default=None
        How a column is written, e.g. ``".2f"``; three digits by default.
    note : str, default=""
        Words under the table.

    Returns
    -------
    Table

    Examples
    --------
    >>> table = make_table(pd.DataFrame({"site": ["A"], "scans": [1200]}), "Sites")
    >>> [cell.text for cell in table.rows[0]], table.are_numbers
    (['A', '1,200'], (False, True))
    """
    formats = {} if formats is None else formats
    shown = frame.iloc[:MAX_ROWS]
    if len(frame) > MAX_ROWS:
        first = f"The first {MAX_ROWS} of {len(frame):,} rows."
        note = f"{first} {note}".strip()
    columns = [
        [_cell(value, formats.get(str(name), "")) for value in shown.iloc[:, i]]
        for i, name in enumerate(shown.columns)
    ]
    return Table(
        caption=caption,
        columns=tuple(str(name) for name in shown.columns),
        are_numbers=tuple(_is_number(dtype) for dtype in frame.dtypes),
        rows=tuple(zip(*columns, strict=True)),
        note=note,
    )


def write_number(value: float) -> str:
    """Return a number as a reader likes it: whole ones whole, others with 3 digits.

    Examples
    --------
    >>> write_number(12345), write_number(0.01234), write_number(1.5)
    ('12,345', '0.0123', '1.5')
    """
    value = float(value)
    if not np.isfinite(value):
        return NOTHING if np.isnan(value) else str(value)
    whole = value.is_integer() and abs(value) < 1e9
    return with_minus(f"{value:,.0f}" if whole else f"{value:.3g}")


def with_minus(text: str) -> str:
    r"""Return a written number with a true minus sign.

    Examples
    --------
    >>> with_minus("-1") == "\N{MINUS SIGN}1"
    True
    """
    return text.replace("-", "\N{MINUS SIGN}")


def write_range(values: Any) -> str:
    """Return the median of numbers and their range.

    Examples
    --------
    >>> write_range([1, 2, 9]), write_range([4.0, 4.0])
    ('2 (1 to 9)', '4')
    """
    numbers = np.asarray(values, dtype=float)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return NOTHING
    low, middle, high = np.quantile(numbers, [0, 0.5, 1])
    if low == high:
        return write_number(low)
    return f"{write_number(middle)} ({write_number(low)} to {write_number(high)})"


def some_rows(n: int, most: int, random_state: Any) -> np.ndarray:
    """Return at most `most` of `n` row numbers, in order.

    Examples
    --------
    >>> some_rows(3, 5, 0).tolist(), len(some_rows(9, 5, 0))
    ([0, 1, 2], 5)
    """
    rows = np.arange(n)
    if n <= most:
        return rows
    chosen = resample(rows, replace=False, n_samples=most, random_state=random_state)
    return np.sort(chosen)


def brief(names: Sequence[object], most: int = 18) -> list[str]:
    """Return names that fit into a picture, those that differ still different.

    Examples
    --------
    >>> brief(["Vis", "7Networks_LH_Vis_1", "7Networks_RH_Vis_1"], 10)
    ['Vis', '7Ne…_Vis_1', '7N…is_1 (2)']
    """
    short: dict[str, str] = {}
    for name in map(str, names):
        number = 1
        text = _cut(name, most)
        while name not in short and text in short.values():
            number += 1
            text = f"{_cut(name, most - 3)} ({number})"
        short.setdefault(name, text)
    return [short[str(name)] for name in names]


def plural(n: int, noun: str) -> str:
    """Return a count with its noun.

    Examples
    --------
    >>> plural(1, "scan"), plural(1200, "scan")
    ('1 scan', '1,200 scans')
    """
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def listed(names: Sequence[object], most: int = 8) -> str:
    """Return names in a row, the first few of many.

    Examples
    --------
    >>> listed(["a", "b"]), listed(range(5), 2)
    ('a, b', '0, 1 and 3 more')
    """
    text = ", ".join(str(name) for name in names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most} more"


def _cut(name: str, most: int) -> str:
    """Return a name without its middle, if it is too long."""
    head = most // 3
    return name if len(name) <= most else f"{name[:head]}…{name[head + 1 - most :]}"


def _cell(value: Any, form: str | Callable[[Any], str]) -> Cell:
    """Return a value as text, with what to sort a number by."""
    if isinstance(value, bool | np.bool_):
        return Cell("yes" if value else "no")
    if isinstance(value, Integral | Real):
        return _number_cell(float(value), form)
    if value is None or value is pd.NA or value is pd.NaT:
        return Cell(NOTHING)
    return Cell(form(value) if callable(form) else str(value))


def _number_cell(value: float, form: str | Callable[[Any], str]) -> Cell:
    """Return a number as text, with all its digits to sort by."""
    if np.isnan(value):
        return Cell(NOTHING)
    if callable(form):
        return Cell(form(value), repr(value))
    if not form:
        return Cell(write_number(value), repr(value))
    text = format_p(value) if form == "p" else f"{value:{form}}"
    return Cell(with_minus(text), repr(value))


def _is_number(dtype: Any) -> bool:
    """Say whether a column is one of numbers."""
    is_truth = pd.api.types.is_bool_dtype(dtype)
    return bool(pd.api.types.is_numeric_dtype(dtype)) and not is_truth
