"""Models side by side."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bsym_sklearn.analysis.scores import LOWER_IS_BETTER
from bsym_sklearn.analysis.statistics import CriticalDifference
from bsym_sklearn.model.layers import check_choice
from bsym_sklearn.plotting.axes import (
    BLUE,
    FONT_SIZE,
    GREY,
    ORANGE,
    make_axes,
    tidy,
)
from bsym_sklearn.plotting.summaries import LABEL_WIDTH, check_columns, metric_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW_HEIGHT = 0.36  # inches
SIGNIFICANT = 0.05


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
    ax.set_xlabel(f"{metric_name(metric)} (mean ± SD)")
    _list_models(ax, table.index)
    return ax


def plot_forest(
    summary: pd.DataFrame,
    *,
    ax: Axes | None = None,
    metric: str | None = None,
    show: str = "auto",
) -> Axes:
    """Draw each model's score, or how far it is from the reference, with an interval.

    Beside the intervals stand the mean scores and, for differences, p after Holm's
    adjustment. A filled dot differs at the 5 % level, blue if better and orange if
    worse; an open one does not.

    Parameters
    ----------
    summary : DataFrame
        One row per model, named by the index, as
        :func:`~bsym_sklearn.analysis.results.summarize` returns it.
    ax : matplotlib Axes or None, default=None
        Where to draw; a new figure if None.
    metric : str or None, default=None
        Score to draw; None takes ``summary.attrs["metric"]``, which alone has
        differences.
    show : {"auto", "difference", "score"}, default="auto"
        What the intervals are of. "auto" draws differences if the summary has them.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If the summary lacks a column, or its differences are of another score.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import pandas as pd
    >>> from bsym_sklearn.plotting import plot_forest
    >>> columns = ["auroc", "auroc_low", "auroc_high"]
    >>> scores = [[0.5, 0.5, 0.5], [0.7, 0.6, 0.8]]
    >>> summary = pd.DataFrame(scores, index=["dummy", "linear"], columns=columns)
    >>> plot_forest(summary, metric="auroc").get_xlabel()
    'AUROC (mean, 95 % CI)'
    """
    check_choice(show, ("auto", "difference", "score"), "show")
    headline = str(summary.attrs.get("metric", metric or "score"))
    metric = headline if metric is None else metric
    if show == "auto":
        is_compared = "difference" in summary and metric == headline
        show = "difference" if is_compared else "score"
    if show == "difference" and metric != headline:
        raise ValueError(
            f"plot_forest needs differences of {metric!r}. Got those of {headline!r}. "
            "Summarize by the score that you want to draw."
        )
    column = "difference" if show == "difference" else metric
    interval = [column, f"{column}_low", f"{column}_high"]
    check_columns("plot_forest", summary, [metric, *interval])
    ax = make_axes(ax, height=0.7 + ROW_HEIGHT * len(summary))
    values = summary[interval].to_numpy(dtype=float, copy=True)
    reference = summary.attrs.get("reference")
    if show == "difference":
        ax.axvline(0.0, color=GREY, lw=0.8, ls="--")
        values[summary.index == reference] = 0.0
        ax.set_xlabel(_difference_label(metric, reference))
    else:
        ax.set_xlabel(f"{metric_name(metric)} (mean, 95 % CI)")
    p_values = _p_values(summary)
    for place, ((mean, low, high), p) in enumerate(zip(values, p_values, strict=True)):
        color, filled = BLUE, True
        if show == "difference":
            filled = bool(p < SIGNIFICANT)
            color = (BLUE if mean > 0 else ORANGE) if filled else GREY
        ax.errorbar(
            mean,
            place,
            xerr=[[mean - low], [high - mean]],
            fmt="o",
            ms=4,
            color=color,
            mfc=color if filled else "white",
            elinewidth=1.2,
        )
    _list_models(ax, summary.index)
    _write_column(ax, 4, metric_name(metric), [f"{v:.3f}" for v in summary[metric]])
    if show == "difference":
        _write_column(ax, 34, "p", [_format_p(p) for p in p_values])
    return ax


def plot_critical_differences(
    result: CriticalDifference, *, ax: Axes | None = None
) -> Axes:
    """Draw the mean rank of each model; a bar joins models that do not differ.

    Parameters
    ----------
    result : CriticalDifference
        Of :func:`~bsym_sklearn.analysis.statistics.critical_difference`.
    ax : matplotlib Axes or None, default=None
        Where to draw; a new figure if None.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.

    References
    ----------
    .. [1] Demsar (2006). Statistical comparisons of classifiers over multiple data
       sets. JMLR 7, 1-30. Figure 1, turned so that long names fit.

    Examples
    --------
    >>> import pandas as pd
    >>> from bsym_sklearn.analysis.statistics import critical_difference
    >>> from bsym_sklearn.plotting import plot_critical_differences
    >>> scores = pd.DataFrame({"a": [0.9, 0.8], "b": [0.7, 0.7], "c": [0.5, 0.6]})
    >>> ax = plot_critical_differences(critical_difference(scores))
    >>> [tick.get_text() for tick in ax.get_yticklabels()]
    ['a', 'b', 'c']
    """
    ranks = result.mean_ranks
    n_models = len(ranks)
    ax = make_axes(ax, height=1.0 + 0.24 * n_models)
    places = np.arange(n_models)
    ax.hlines(places, 1, ranks, color=GREY, lw=0.6, alpha=0.6)
    ax.plot(ranks, places, "o", ms=4, color=BLUE)
    step = 0.05 * n_models
    right = n_models + step
    for i, clique in enumerate(result.cliques):
        first, last = (ranks.index.get_loc(clique[end]) for end in (0, -1))
        x = n_models + (i + 1.5) * step
        ax.plot([x, x], [first - 0.25, last + 0.25], color="black", lw=2.2)
        right = x + step
    top = -1.3
    end = 1 + result.difference
    ax.plot([1, end], [top, top], "|-", color="black", lw=1.2, ms=5)
    ax.annotate(
        f"critical difference {result.difference:.2f}",
        (1, top),
        (0, 4),
        textcoords="offset points",
        fontsize=FONT_SIZE - 1,
    )
    _list_models(ax, ranks.index)
    ax.set_xlim(1 - step, max(right, end + step))
    ax.set_ylim(n_models - 0.5, top - 0.9)
    ax.set_xticks(_rank_ticks(n_models))
    ax.set_xlabel(f"mean rank, 1 is best\n(Friedman {_p_text(result.p_value)})")
    return ax


def _difference_label(metric: str, reference: str | None) -> str:
    """Return what an axis of differences shows."""
    direction = "below" if metric in LOWER_IS_BETTER else "above"
    name = fill("the reference" if reference is None else reference, LABEL_WIDTH)
    return f"{metric_name(metric)} {direction} that of\n{name} (95 % CI)"


def _p_values(summary: pd.DataFrame) -> np.ndarray:
    """Return p after Holm's adjustment, NaN where there is none."""
    if "p_holm" not in summary:
        return np.full(len(summary), np.nan)
    return summary["p_holm"].to_numpy(dtype=float)


def _format_p(p: float) -> str:
    """Return p with three digits, without the 0 before the point."""
    if np.isnan(p):
        return ""
    return "<.001" if p < 0.001 else f"{p:.3f}".replace("0.", ".", 1)


def _p_text(p: float) -> str:
    """Return p with its relation."""
    text = _format_p(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def _rank_ticks(n_models: int) -> list[int]:
    """Return at most about eight ranks, the first and the last among them."""
    step = -(-(n_models - 1) // 7)
    return [1, *range(1 + step, n_models - step // 2, step), n_models]


def _list_models(ax: Axes, names: pd.Index) -> None:
    """Write the models on the y axis, the first on top."""
    ax.set_yticks(range(len(names)), [fill(str(name), LABEL_WIDTH) for name in names])
    ax.set_ylim(len(names) - 0.5, -0.7)
    tidy(ax)
    ax.tick_params(axis="y", length=0)


def _write_column(ax: Axes, offset: float, head: str, cells: list[str]) -> None:
    """Write a column of text, `offset` points right of the Axes."""
    for place, text in enumerate([head, *cells], start=-1):
        ax.annotate(
            text,
            (1.0, max(place, -0.8)),
            (offset, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=FONT_SIZE - 1,
        )
