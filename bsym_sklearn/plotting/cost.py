"""Scores and what they cost."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bsym_sklearn.analysis.cost import pareto_front
from bsym_sklearn.analysis.scores import LOWER_IS_BETTER
from bsym_sklearn.model.layers import check_choice
from bsym_sklearn.plotting.axes import BLUE, FONT_SIZE, GREY, make_axes, tidy
from bsym_sklearn.plotting.summaries import check_columns, metric_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KEY_WIDTH = 30  # characters of a line
KEY_LINE_HEIGHT = 0.115  # inches


def plot_cost(
    summary: pd.DataFrame,
    *,
    cost: str = "seconds",
    ax: Axes | None = None,
    metric: str | None = None,
) -> Axes:
    """Draw score against cost; the line joins models that nothing cheaper reaches.

    Parameters
    ----------
    summary : DataFrame
        One row per model, named by the index, as
        :func:`~bsym_sklearn.analysis.results.summarize` returns it.
    cost : {"seconds", "parameters"}, default="seconds"
        What the x axis counts, on a logarithmic scale.
    ax : matplotlib Axes or None, default=None
        Where to draw; a new figure if None.
    metric : str or None, default=None
        Score to draw; None takes ``summary.attrs["metric"]``.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If the summary lacks a column.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import pandas as pd
    >>> from bsym_sklearn.plotting import plot_cost
    >>> scores = {"auroc": [0.5, 0.7], "seconds": [0.1, 30.0]}
    >>> summary = pd.DataFrame(scores, index=["dummy", "linear"])
    >>> ax = plot_cost(summary, metric="auroc")
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['1. dummy', '2. linear']
    """
    check_choice(cost, ("seconds", "parameters"), "cost")
    metric = str(summary.attrs.get("metric", "score") if metric is None else metric)
    check_columns("plot_cost", summary, [metric, cost])
    lower = metric in LOWER_IS_BETTER
    x = summary[cost].to_numpy(dtype=float)
    y = summary[metric].to_numpy(dtype=float)
    front = pareto_front(x, y, lower_is_better=lower)
    key = [
        fill(f"{i}. {name}", KEY_WIDTH, subsequent_indent="    ")
        for i, name in enumerate(summary.index, start=1)
    ]
    half = (len(key) + 1) // 2
    n_lines = max("\n".join(part).count("\n") for part in (key[:half], key[half:])) + 1
    ax = make_axes(ax, height=2.0 + KEY_LINE_HEIGHT * n_lines)
    order = np.flatnonzero(front)[np.argsort(x[front], kind="stable")]
    ax.plot(x[order], y[order], drawstyle="steps-post", color=BLUE, lw=1.2, zorder=1)
    for i, label in enumerate(key):
        ax.plot(
            x[i],
            y[i],
            "o",
            ms=9,
            mfc="white",
            mec=BLUE if front[i] else GREY,
            zorder=2 + 2 * i,
            label=label,
        )
        ax.text(
            x[i],
            y[i],
            str(i + 1),
            ha="center",
            va="center_baseline",
            fontsize=FONT_SIZE - 2.5,
            zorder=3 + 2 * i,
        )
    ax.margins(0.07)
    _scale_costs(ax, x)
    ax.set_xlabel({"seconds": "seconds to fit", "parameters": "parameters"}[cost])
    ax.set_ylabel(f"{metric_name(metric)}{' (lower is better)' if lower else ''}")
    tidy(ax)
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.02),
        borderaxespad=0.0,
        ncols=2,
        columnspacing=1.0,
        handlelength=0.8,
        handletextpad=0.6,
        labelspacing=0.3,
        frameon=False,
        fontsize=FONT_SIZE - 2,
        markerscale=0.5,
    )
    return ax


def _scale_costs(ax: Axes, costs: np.ndarray) -> None:
    """Make the x axis logarithmic, with room for costs of zero."""
    positive = costs[costs > 0]
    if not (costs <= 0).any():
        ax.set_xscale("log")
    elif len(positive):  # a dummy has no parameters, and zero no logarithm
        ax.set_xscale("symlog", linthresh=10.0 ** np.floor(np.log10(positive.min())))
