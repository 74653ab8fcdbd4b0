"""The plain charts of a page: counts, distributions, predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from bsym_sklearn.plotting.axes import BLUE, FONT_SIZE, GREY, tidy
from bsym_sklearn.report.contents import brief

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_BINS = 24


def draw_bars(ax: Axes, names: Sequence[object], counts: ArrayLike, unit: str) -> None:
    """Draw a bar per name, with its number.

    Parameters
    ----------
    ax : matplotlib Axes
        Where to draw.
    names : sequence of length n
        Written on the left.
    counts : array-like of shape (n,)
        Lengths of the bars.
    unit : str
        What is counted.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> draw_bars(ax, ["a", "b"], [3, 4], "scans")
    >>> [text.get_text() for text in ax.texts]
    ['3', '4']
    """
    numbers = np.asarray(counts)
    places = np.arange(len(numbers))
    ax.barh(places, numbers, height=0.62, color=BLUE)
    for place, number in zip(places, numbers, strict=True):
        ax.annotate(
            f"{number:,}",
            (number, place),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize=FONT_SIZE - 1,
        )
    ax.set_yticks(places, brief(names))
    ax.set_ylim(len(numbers) - 0.4, -0.6)
    ax.set_xlim(0, 1.15 * numbers.max())
    ax.set_xticks([])
    ax.set_xlabel(unit)
    tidy(ax)
    ax.spines["bottom"].set_visible(False)
    ax.tick_params(axis="y", length=0)


def draw_histogram(ax: Axes, values: ArrayLike, label: str, unit: str) -> None:
    """Draw how values are distributed, with a line at their median.

    Parameters
    ----------
    ax : matplotlib Axes
        Where to draw.
    values : array-like of shape (n,)
        NaN are left out.
    label : str
        Quantity and unit of the values.
    unit : str
        What is counted.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> draw_histogram(ax, [1.0, 2.0, np.nan], "age (years)", "scans")
    >>> int(sum(bar.get_height() for bar in ax.patches))
    2
    """
    numbers = np.asarray(values, dtype=float)
    numbers = numbers[np.isfinite(numbers)]
    edges = np.histogram_bin_edges(numbers, "auto")
    if len(edges) > MAX_BINS + 1:
        edges = np.histogram_bin_edges(numbers, MAX_BINS)
    ax.hist(numbers, edges.tolist(), color=BLUE, edgecolor="white", linewidth=0.5)
    ax.axvline(float(np.median(numbers)), color=GREY, lw=1.0, ls="--")
    ax.set(xlabel=label, ylabel=unit)
    ax.locator_params(axis="y", integer=True, nbins=4)
    tidy(ax)


def draw_predictions(ax: Axes, truth: ArrayLike, predicted: ArrayLike) -> None:
    """Draw a dot per scan, and the line on which predictions would be right.

    Parameters
    ----------
    ax : matplotlib Axes
        Where to draw.
    truth, predicted : array-like of shape (n,)
        In the unit of the target.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> draw_predictions(ax, [1, 2], [1, 3])
    >>> ax.get_xlabel()
    'target'
    """
    truth, predicted = np.asarray(truth, float), np.asarray(predicted, float)
    ends = [min(truth.min(), predicted.min()), max(truth.max(), predicted.max())]
    ax.plot(ends, ends, color=GREY, lw=1.0, ls="--")
    ax.plot(truth, predicted, "o", ms=3.5, color=BLUE, alpha=0.6, mew=0)
    ax.set(xlabel="target", ylabel="predicted")
    tidy(ax)
