"""Where two conditions differ, and what survives correction."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from bsym_sklearn.analysis.contrast_result import ALPHA, Contrast
from bsym_sklearn.model.layers import check_choice
from bsym_sklearn.plotting.axes import (
    BLUE,
    FONT_SIZE,
    GREY,
    ORANGE,
    add_colorbar,
    make_axes,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW_HEIGHT = 0.18  # inches, of a line of small text
QUANTITY_WIDTH = 36  # characters of a line
MAX_LABELS = 30  # more cannot be read in a column
VALUES = {"difference": "difference", "effect_size": "effect size", "t": "t"}


def plot_contrast(
    result: Contrast,
    *,
    ax: Axes | None = None,
    labels: Sequence[str] | None = None,
    show: str = "auto",
    value: str = "difference",
    n_top: int = 15,
    alpha: float = ALPHA,
    quantity: str = "difference",
) -> Axes:
    """Draw where two conditions differ, and what survives correction.

    Intervals: the cells of the smallest p, the first on top, blue if A is larger and
    orange if B is, filled if they survive. Map: all cells of square maps; those that
    survive are marked.

    Parameters
    ----------
    result : Contrast
        Of :func:`~bsym_sklearn.analysis.contrast.contrast`.
    ax : matplotlib Axes or None, default=None
        Where to draw; a new figure if None.
    labels : sequence of str or None, default=None
        Names of the regions or networks.
    show : {"auto", "intervals", "map"}, default="auto"
        "auto" draws a map of square maps and intervals of others.
    value : {"difference", "effect_size", "t"}, default="difference"
        What a map shows.
    n_top : int, default=15
        Rows of intervals, at most.
    alpha : float, default=0.05
        Level of the corrected p.
    quantity : str, default="difference"
        What the difference is of, and its unit, for the axis.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If a choice is unknown, or maps that are not square are to be shown as one.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.analysis.contrast import contrast
    >>> from bsym_sklearn.plotting.contrast import plot_contrast
    >>> before = np.random.default_rng(0).normal(size=(9, 3))
    >>> after = before + np.random.default_rng(1).normal(size=(9, 3)) + [0, 0, 5]
    >>> ax = plot_contrast(contrast(after, before), labels=["V1", "M1", "A1"])
    >>> ax.get_yticklabels()[0].get_text()
    'A1'
    """
    check_choice(show, ("auto", "intervals", "map"), "show")
    check_choice(value, tuple(VALUES), "value")
    is_square = result.p.ndim == 2
    if show == "map" and not is_square:
        raise ValueError(
            "plot_contrast needs square maps for show='map'. Got a contrast of "
            f"{result.p.shape[0]} regions. Show intervals."
        )
    if show == "map" or (show == "auto" and is_square):
        name = quantity if value == "difference" else VALUES[value]
        return _draw_map(result, ax, labels, value, name, alpha)
    return _draw_intervals(result, ax, labels, n_top, quantity, alpha)


def _draw_intervals(
    result: Contrast,
    ax: Axes | None,
    labels: Sequence[str] | None,
    n_top: int,
    quantity: str,
    alpha: float,
) -> Axes:
    """Draw the difference of the top cells, with intervals."""
    table = result.table(labels).iloc[:n_top]
    ax = make_axes(ax, height=0.9 + ROW_HEIGHT * len(table))
    ax.axvline(0.0, color=GREY, lw=0.8, ls="--")
    for place, row in enumerate(table.to_dict("records")):
        color = BLUE if row["difference"] > 0 else ORANGE
        survives = row["p_corrected"] < alpha
        ax.errorbar(
            row["difference"],
            place,
            xerr=[
                [row["difference"] - row["low"]],
                [row["high"] - row["difference"]],
            ],
            fmt="o",
            ms=4,
            color=color,
            mfc=color if survives else "white",
            elinewidth=1.0,
        )
    is_edge = "to" in table
    arrow = "-" if result.is_symmetric else "→"
    names = [
        f"{row['from']} {arrow} {row['to']}" if is_edge else str(row["region"])
        for row in table.to_dict("records")
    ]
    ax.set_yticks(range(len(table)), names)
    ax.set_ylim(len(table) - 0.5, -0.7)
    ax.set_xlabel(f"{fill(quantity, QUANTITY_WIDTH)}\n(95 % CI of each)")
    ax.locator_params(axis="x", nbins=5)
    ax.ticklabel_format(axis="x", style="sci", scilimits=(-2, 4))
    ax.xaxis.offsetText.set_fontsize(FONT_SIZE - 1)
    ax.set_title(_verdict(result, alpha), loc="left", fontsize=FONT_SIZE)
    tidy(ax)
    ax.tick_params(axis="y", length=0, labelsize=FONT_SIZE - 1.5)
    return ax


def _draw_map(
    result: Contrast,
    ax: Axes | None,
    labels: Sequence[str] | None,
    value: str,
    quantity: str,
    alpha: float,
) -> Axes:
    """Draw all cells of a square map, and mark those that survive."""
    ax = make_axes(ax, height=3.0)
    shown = np.where(np.isnan(result.p), np.nan, getattr(result, value))
    limit = float(np.nanmax(np.abs(shown[np.isfinite(shown)]), initial=0.0)) or 1.0
    image = ax.imshow(
        shown, cmap="PuOr_r", vmin=-limit, vmax=limit, interpolation="nearest"
    )
    rows, columns = np.nonzero(result.surviving(alpha))
    size = float(np.clip(250 / len(shown), 3, 40))
    ax.scatter(columns, rows, s=size, marker="o", fc="none", ec="black", lw=0.7)
    ends = ("region", "region") if result.is_symmetric else ("attended", "attending")
    ax.set(xlabel=ends[0], ylabel=ends[1], xticks=[], yticks=[])
    if labels is not None and len(labels) <= MAX_LABELS:
        places = range(len(labels))
        ax.set_xticks(places, labels, rotation=90)
        ax.set_yticks(places, labels)
        ax.tick_params(length=0)
    ax.set_title(_verdict(result, alpha), loc="left", fontsize=FONT_SIZE)
    tidy(ax)
    add_colorbar(ax, image, fill(quantity, QUANTITY_WIDTH))
    return ax


def _verdict(result: Contrast, alpha: float) -> str:
    """Return how many cells survive which correction."""
    table = result.table()
    n = int((table["p_corrected"] < alpha).sum())
    return f"{n or 'none'} of {len(table)} at p < {alpha:g} ({result.correction})"
