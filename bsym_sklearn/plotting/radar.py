"""Several scores of several models on one picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bsym_sklearn.analysis.scores import LOWER_IS_BETTER
from bsym_sklearn.plotting.axes import FONT_SIZE, make_axes
from bsym_sklearn.plotting.colors import PALETTE
from bsym_sklearn.plotting.summaries import LABEL_WIDTH, check_columns, metric_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Light colours last: lines and dots are thin.
LINE_COLORS = (*(PALETTE[i] for i in (4, 5, 2, 6, 0, 1, 7, 3)), "#000000")
MARKERS = "os^Dv<>"  # not as many as colours: pairs repeat late
SPOKE_WIDTH = 10  # characters of a line
WORST = 0.15  # of the radius, where a radar has the worst model


def plot_radar(
    summary: pd.DataFrame,
    *,
    ax: Axes | None = None,
    metrics: Sequence[str] | None = None,
    lower_is_better: Sequence[str] = tuple(sorted(LOWER_IS_BETTER)),
) -> Axes:
    r"""Draw several scores, or one on several benchmarks, as a polygon per model.

    Each spoke goes from the worst of the models, near the centre, to the best, at the
    rim, and says both: scores have different units, so that areas mean nothing and
    small differences look large.

    Parameters
    ----------
    summary : DataFrame
        One row per model, named by the index: what
        :func:`~bsym_sklearn.analysis.results.summarize` returns, or a table with a
        column per benchmark.
    ax : matplotlib Axes or None, default=None
        Where to draw, with ``projection="polar"``; a new figure if None.
    metrics : sequence of str or None, default=None
        Columns to draw, at least three. None takes ``summary.attrs["metrics"]``, or
        all columns.
    lower_is_better : sequence of str, default=("brier", "log_loss", "mae")
        Columns of which less is better.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If there are fewer than three columns, one is missing, or `ax` is not polar.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import pandas as pd
    >>> from bsym_sklearn.plotting.radar import plot_radar
    >>> columns = ["auroc", "f1", "brier"]
    >>> scores = [[0.5, 0.4, 0.25], [0.7, 0.6, 0.20]]
    >>> summary = pd.DataFrame(scores, index=["chance", "linear"], columns=columns)
    >>> [text.get_text() for text in plot_radar(summary).get_xticklabels()]
    ['AUROC\n.500 to .700', 'F1\n.400 to .600', 'brier\n.250 to .200']
    """
    if metrics is None:
        metrics = summary.attrs.get("metrics", list(summary.columns))
    check_columns("plot_radar", summary, metrics)
    if len(metrics) < 3:
        raise ValueError(
            f"plot_radar needs three scores or more. Got {list(metrics)}. Draw fewer "
            "with plot_comparison."
        )
    if ax is not None and ax.name != "polar":
        raise ValueError(
            f"plot_radar needs polar Axes. Got {ax.name!r} ones. Make them with "
            "`projection='polar'`."
        )
    polar: Any = _make_polar_axes(len(summary)) if ax is None else ax
    values = summary[list(metrics)].to_numpy(dtype=float)
    flipped = np.where([m in lower_is_better for m in metrics], -1.0, 1.0)
    worst, best = (values * flipped).min(axis=0), (values * flipped).max(axis=0)
    spread = np.where(best > worst, best - worst, 1.0)
    share = np.where(best > worst, (values * flipped - worst) / spread, 1.0)
    radius = WORST + (1 - WORST) * share
    angles = np.linspace(0, 2 * np.pi, len(metrics), endpoint=False)
    styles = zip(cycle(LINE_COLORS), cycle(MARKERS), strict=False)
    for name, row, (color, marker) in zip(summary.index, radius, styles, strict=False):
        polar.plot(
            np.append(angles, angles[0]),
            np.append(row, row[0]),
            color=color,
            marker=marker,
            ms=3,
            lw=1.2,
            label=fill(str(name), LABEL_WIDTH),
        )
    ends = [
        f"{fill(metric_name(m), SPOKE_WIDTH)}\n{_plain(sign * low)} to "
        f"{_plain(sign * high)}"
        for m, low, high, sign in zip(metrics, worst, best, flipped, strict=True)
    ]
    polar.set_theta_offset(np.pi / 2)
    polar.set_theta_direction(-1)
    polar.set_xticks(angles, ends, fontsize=FONT_SIZE - 1)
    polar.tick_params(axis="x", pad=4)
    for label, angle in zip(polar.get_xticklabels(), angles, strict=True):
        side = np.sin(angle)
        label.set_ha("center" if abs(side) < 0.1 else "left" if side > 0 else "right")
    polar.set_ylim(0, 1.05)
    polar.set_yticks([WORST, 1.0], [])
    polar.spines["polar"].set_visible(False)
    polar.grid(lw=0.5, alpha=0.6)
    polar.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
        ncols=2,
        frameon=False,
        fontsize=FONT_SIZE - 1.5,
    )
    return polar


def _make_polar_axes(n_models: int) -> Axes:
    """Return polar Axes of a new figure of one column's width."""
    figure = make_axes(None, height=3.2 + 0.07 * n_models).figure
    figure.clear()
    return figure.add_subplot(projection="polar")


def _plain(value: float) -> str:
    """Return a score with three digits, without the 0 before the point."""
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3g}"
