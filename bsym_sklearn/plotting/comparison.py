"""Models side by side."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bsym_sklearn.plotting.axes import BLUE, FONT_SIZE, GREY, make_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABEL_WIDTH = 26  # characters of a line
ROW_HEIGHT = 0.36  # inches


def plot_comparison(
    table: pd.DataFrame,
    *,
    ax: Axes | None = None,
    metric: str = "accuracy",
    reference: str | None = None,
) -> Axes:
    """Draw one dot per model, with its spread.

    Parameters
    ----------
    table : DataFrame
        One row per model, named by the index. Column `metric` is the mean and
        ``<metric>_sd``, if there, the standard deviation.
    ax : matplotlib Axes or None, default=None
        Where to draw; a new figure if None.
    metric : str, default="accuracy"
        Column to draw.
    reference : str or None, default=None
        Model whose mean is drawn as a line through the others.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If the table lacks the metric or the reference.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import pandas as pd
    >>> from bsym_sklearn.plotting import plot_comparison
    >>> scores = {"accuracy": [0.5, 0.9], "accuracy_sd": [0.0, 0.1]}
    >>> ax = plot_comparison(pd.DataFrame(scores, index=["chance", "linear"]))
    >>> [tick.get_text() for tick in ax.get_yticklabels()]
    ['chance', 'linear']
    """
    if metric not in table or (reference is not None and reference not in table.index):
        raise ValueError(
            f"plot_comparison needs a column {metric!r} and a row {reference!r}. Got "
            f"the columns {list(table.columns)} and the rows {list(table.index)}."
        )
    ax = make_axes(ax, height=0.6 + ROW_HEIGHT * len(table))
    places = np.arange(len(table))
    spread = table.get(f"{metric}_sd", pd.Series(0.0, index=table.index)).fillna(0.0)
    if reference is not None:
        ax.axvline(float(table.loc[reference, metric]), color=GREY, lw=0.8, ls="--")
    ax.errorbar(
        table[metric], places, xerr=spread, fmt="o", ms=4, color=BLUE, elinewidth=1.2
    )
    for place, mean in zip(places, table[metric], strict=True):
        ax.annotate(
            f"{mean:.2f}",
            (mean, place),
            (0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=FONT_SIZE - 2,
        )
    ax.set_yticks(places, [fill(str(name), LABEL_WIDTH) for name in table.index])
    ax.set_ylim(len(table) - 0.5, -0.7)  # the first row on top
    ax.set_xlabel(f"{metric.replace('_', ' ')} (mean ± SD)")
    tidy(ax)
    ax.tick_params(axis="y", length=0)
    return ax
