"""Where scans lie in the space of embeddings, and how they move."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from bsym_sklearn.analysis.embedding_maps import Projection
from bsym_sklearn.plotting.axes import BLUE, FONT_SIZE, GREY, ORANGE, make_axes, tidy
from bsym_sklearn.plotting.radar import LINE_COLORS, MARKERS
from bsym_sklearn.plotting.summaries import check_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_projection(
    projection: Projection,
    *,
    ax: Axes | None = None,
    groups: ArrayLike | None = None,
    shapes: ArrayLike | None = None,
) -> Axes:
    """Draw scans as points of a plane.

    Parameters
    ----------
    projection : Projection
        Of :func:`~bsym_sklearn.analysis.embedding_maps.project`; its first two axes.
    ax : matplotlib Axes or None, default=None
        Where to draw; a new figure if None.
    groups : array-like of shape (n,) or None, default=None
        What gives a scan its colour; up to nine, then colours repeat.
    shapes : array-like of shape (n,) or None, default=None
        What gives a scan its shape. None gives every group one, as colours alone may
        not be told apart.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If there is one axis only, or groups or shapes are not one per scan.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.analysis.embedding_maps import project
    >>> from bsym_sklearn.plotting.embedding_maps import plot_projection
    >>> map_ = project(np.random.default_rng(0).normal(size=(6, 4)))
    >>> ax = plot_projection(map_, groups=["before", "after"] * 3)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['after', 'before']
    """
    points = projection.points
    n = len(points)
    colours = np.zeros(n) if groups is None else np.asarray(groups)
    forms = colours if shapes is None else np.asarray(shapes)
    if colours.shape != (n,) or forms.shape != (n,) or points.shape[1] < 2:
        raise ValueError(
            "plot_projection needs two axes, and a group and a shape per scan. Got "
            f"points of shape {points.shape}, {colours.shape} groups and "
            f"{forms.shape} shapes. Take them from the same rows."
        )
    ax = make_axes(ax, height=2.8)
    color_of = dict(zip(np.unique(colours).tolist(), cycle(LINE_COLORS), strict=False))
    marker_of = dict(zip(np.unique(forms).tolist(), cycle(MARKERS), strict=False))
    for group, color in color_of.items():
        for form, marker in marker_of.items():
            of_both = (colours == group) & (forms == form)
            if of_both.any():
                ax.scatter(
                    points[of_both, 0],
                    points[of_both, 1],
                    s=18,
                    color=color,
                    marker=marker,
                    alpha=0.85,
                    linewidths=0,
                )
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel(_axis_name(projection, 0))
    ax.set_ylabel(_axis_name(projection, 1))
    tidy(ax)
    if groups is not None or shapes is not None:
        _add_keys(ax, color_of, marker_of, groups is not None, shapes is not None)
    return ax


def plot_drift(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw how far embeddings of windows move from the first window of their scan.

    Parameters
    ----------
    table : DataFrame
        Of :func:`~bsym_sklearn.analysis.embedding_maps.drift`.
    ax : matplotlib Axes or None, default=None
        Where to draw; a new figure if None.

    Returns
    -------
    matplotlib Axes
        Thin lines are scans; thick ones means over scans: from the first window, from
        the one before, and to the same window of other scans.

    Raises
    ------
    ValueError
        If the table lacks a column.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import pandas as pd
    >>> from bsym_sklearn.plotting.embedding_maps import plot_drift
    >>> nan = float("nan")
    >>> distances = {"from_first": [nan, 1.0], "from_previous": [nan, 1.0]}
    >>> windows = {"scan": [0, 0], "window": [0, 1], "to_others": [3.0, 3.0]}
    >>> plot_drift(pd.DataFrame(windows | distances)).get_ylabel()
    'distance of embeddings'
    """
    lines = {
        "from_first": ("from the scan's first window", BLUE, "o-"),
        "from_previous": ("from the window before", ORANGE, "s-"),
        "to_others": ("to the other scans", GREY, "--"),
    }
    check_columns("plot_drift", table, ["scan", "window", *lines])
    ax = make_axes(ax, height=2.4)
    for _, scan in table.groupby("scan"):
        ax.plot(scan["window"] + 1, scan["from_first"], color=BLUE, lw=0.5, alpha=0.3)
    means = table.groupby("window")[list(lines)].mean()
    for name, (label, color, style) in lines.items():
        ax.plot(means.index + 1, means[name], style, color=color, ms=4, label=label)
    ax.set_ylim(bottom=0)
    ax.set_xticks(means.index + 1)
    ax.set_xlabel("window")
    ax.set_ylabel("distance of embeddings")
    tidy(ax)
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        frameon=False,
        fontsize=FONT_SIZE - 1,
    )
    return ax


def _axis_name(projection: Projection, axis: int) -> str:
    """Return the name of an axis of a map."""
    if projection.explained_variance is None:
        return f"{projection.method} {axis + 1} (no unit)"
    share = projection.explained_variance[axis]
    return f"component {axis + 1} ({share:.0%} of variance)"


def _add_keys(
    ax: Axes,
    color_of: dict[Any, str],
    marker_of: dict[Any, str],
    has_groups: bool,
    has_shapes: bool,
) -> None:
    """Explain colours and shapes above the picture."""
    keys: list[tuple[str, str, str]] = []
    if has_groups:
        keys += [
            (str(name), color, "o" if has_shapes else marker_of[name])
            for name, color in color_of.items()
        ]
    if has_shapes:
        keys += [(str(name), GREY, marker) for name, marker in marker_of.items()]
    handles = [
        ax.plot([], [], marker, color=color, ms=4, label=name)[0]
        for name, color, marker in keys
    ]
    ax.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=min(4, max(2, -(-len(handles) // 3))),
        columnspacing=0.8,
        handletextpad=0.2,
        frameon=False,
        fontsize=FONT_SIZE - 1,
    )
