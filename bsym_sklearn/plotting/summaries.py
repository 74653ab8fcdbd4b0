"""What the pictures of a comparison read from its summary."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

LABEL_WIDTH = 26  # characters of a line
METRIC_NAMES = {"auroc": "AUROC", "f1": "F1", "mae": "MAE", "r2": "R²"}


def metric_name(metric: str) -> str:
    """Return how a score is written.

    Parameters
    ----------
    metric : str
        Column of a summary.

    Returns
    -------
    str

    Examples
    --------
    >>> metric_name("auroc"), metric_name("log_loss")
    ('AUROC', 'log loss')
    """
    return METRIC_NAMES.get(metric, metric.replace("_", " "))


def check_columns(who: str, table: pd.DataFrame, needed: Sequence[str]) -> None:
    """Raise unless a summary has what is to be drawn.

    Parameters
    ----------
    who : str
        Name used in the error.
    table : DataFrame
        The summary.
    needed : sequence of str
        Its columns.

    Raises
    ------
    ValueError
        If one is missing.

    Examples
    --------
    >>> check_columns("plot", pd.DataFrame({"f1": [0.5]}), ["r2"])
    Traceback (most recent call last):
    ValueError: plot needs a column 'r2'. Got the columns ['f1']. Pass what `summarize`
    returns.
    """
    missing = [name for name in needed if name not in table]
    if missing:
        raise ValueError(
            f"{who} needs a column {missing[0]!r}. Got the columns "
            f"{list(table.columns)}. Pass what `summarize` returns."
        )
