"""The files that a comparison leaves: tables, predictions and cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bsym_sklearn.analysis.results import prediction_table
from bsym_sklearn.analysis.tables import format_table
from bsym_sklearn.files import write_atomically

SUFFIXES = {"text": "txt", "markdown": "md", "latex": "tex", "csv": "csv"}
# Columns of results that are in other files, or are places on this machine.
ELSEWHERE = ["rows", "groups", "y_true", "y_pred", "y_proba", "classes", "versions"]
ELSEWHERE += ["weights"]


def write_results(
    folder: Path,
    results: pd.DataFrame,
    summary: pd.DataFrame,
    notes: Sequence[str],
    task: str,
) -> str:
    """Write tables, predictions and cells into a folder.

    Parameters
    ----------
    folder : Path
        Made if needed; older files of these names are replaced.
    results : DataFrame
        Of :func:`~bsym_sklearn.analysis.comparison.compare`.
    summary : DataFrame
        Of :func:`~bsym_sklearn.analysis.results.summarize`.
    notes : sequence of str
        Sentences below the table, such as those of
        :func:`~bsym_sklearn.analysis.tables.conclusions`.
    task : str
        What is predicted.

    Returns
    -------
    str
        The table and the notes, as in ``table.txt``. ``table.md``, ``.tex`` and
        ``.csv`` hold it too; ``predictions.csv`` has one line per model, split, seed
        and tested scan, and ``cells.csv`` one per cell.

    Examples
    --------
    >>> import tempfile
    >>> from bsym_sklearn.analysis.comparison import compare
    >>> from bsym_sklearn.analysis.results import summarize
    >>> from bsym_sklearn.data import make_cohort
    >>> cohort = make_cohort(n_scans=12, n_regions=5, n_timepoints=40)
    >>> results = compare(["dummy"], cohort.data, cohort.target, cv=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     text = write_results(Path(folder), results, summarize(results), [], "state")
    ...     sorted(path.suffix for path in Path(folder).glob("table.*"))
    ['.csv', '.md', '.tex', '.txt']
    >>> text.splitlines()[0]
    'state: mean ± standard deviation over 2 splits, 1 seeds averaged in each; compared
    by auroc'
    """
    metric = summary.attrs["metric"]
    n_splits, n_seeds = summary["splits"].max(), summary["seeds"].max()
    head = (
        f"{task}: mean ± standard deviation over {n_splits} splits, "
        f"{n_seeds} seeds averaged in each; compared by {metric}"
    )
    tables = {style: format_table(summary, style) for style in SUFFIXES}
    text = "\n".join([head, "", tables["text"], "", *notes])
    tables["text"] = text
    tables["markdown"] += "\n\n" + "\n".join(f"- {note}" for note in notes)
    for style, suffix in SUFFIXES.items():
        write_atomically(folder / f"table.{suffix}", tables[style].rstrip("\n") + "\n")
    prediction_table(results).to_csv(folder / "predictions.csv", index=False)
    results.drop(columns=ELSEWHERE).to_csv(folder / "cells.csv", index=False)
    return text
