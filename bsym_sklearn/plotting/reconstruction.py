"""What was hidden of a scan, and what the model says was there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from bsym_sklearn.plotting.axes import FONT_SIZE, GREY, add_colorbar, make_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LIMIT = 2.5  # of the colours, in standard deviations
GAP = 0.08  # between the carpets, as a share of their width


def plot_reconstruction(
    scan: ArrayLike,
    decoded: ArrayLike,
    hidden: ArrayLike,
    *,
    ax: Axes | None = None,
    t_r: float | None = None,
) -> Axes:
    """Draw three carpets: a scan, what the model saw of it, and what it decoded.

    Regions are rows, those that are hidden most on top.

    Parameters
    ----------
    scan : array-like of shape (n_timepoints, n_regions)
        Series in the model's units (standard deviations).
    decoded : array-like of shape (n_timepoints, n_regions)
        From ``reconstruct(X, mask=...)``.
    hidden : array-like of bool of shape (n_timepoints, n_regions) or (n_regions,)
        True where the value, or the whole region, was hidden from the model.
    ax : matplotlib Axes or None, default=None
        Where to draw; a new figure if None.
    t_r : float or None, default=None
        Repetition time in seconds, for an axis in seconds.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If the shapes do not fit each other.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.plotting import plot_reconstruction
    >>> scan = np.random.default_rng(0).normal(size=(30, 6))
    >>> hidden = np.arange(6) < 2
    >>> ax = plot_reconstruction(scan, np.zeros_like(scan), hidden)
    >>> [text.get_text() for text in ax.texts]
    ['recorded', 'seen', 'decoded']
    """
    scan, decoded = np.asarray(scan, float), np.asarray(decoded, float)
    hidden = np.asarray(hidden, bool)
    fits = hidden.shape in (scan.shape, scan.shape[1:]) and decoded.shape == scan.shape
    if scan.ndim != 2 or not fits:
        raise ValueError(
            "plot_reconstruction needs scan and decoded of shape (n_timepoints, "
            "n_regions) and hidden of that shape or (n_regions,). Got "
            f"{scan.shape}, {decoded.shape} and {hidden.shape}."
        )
    hidden = np.broadcast_to(hidden, scan.shape)
    order = np.argsort(-hidden.mean(axis=0), kind="stable")
    seen = np.ma.masked_array(scan, hidden)
    ax = make_axes(ax, height=2.4)
    n_timepoints, n_regions = scan.shape
    duration = n_timepoints * (1.0 if t_r is None else t_r)
    step = duration * (1 + GAP)
    ax.set_facecolor("white")
    parts = {"recorded": scan, "seen": seen, "decoded": decoded}
    for k, (title, values) in enumerate(parts.items()):
        left = k * step
        extent = (left, left + duration, n_regions, 0)
        ax.fill_between([left, left + duration], 0, n_regions, color=GREY, lw=0)
        image = ax.imshow(
            values[:, order].T,
            extent=extent,
            aspect="auto",
            cmap="PuOr_r",
            vmin=-LIMIT,
            vmax=LIMIT,
            interpolation="nearest",
            zorder=2,
        )
        middle = left + duration / 2
        ax.annotate(
            title,
            (middle, 0),
            (0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=FONT_SIZE,
        )
    ax.set(
        xlim=(0, 2 * step + duration),
        ylim=(n_regions, 0),
        xticks=[x for k in range(3) for x in (k * step, k * step + duration)],
        xticklabels=["0", f"{duration:g}"] * 3,
        yticks=[],
        xlabel="time point" if t_r is None else "time (s)",
        ylabel="region (hidden on top)",
    )
    tidy(ax)
    for k, label in enumerate(ax.get_xticklabels()):
        label.set_horizontalalignment("right" if k % 2 else "left")
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(axis="x", length=0)
    add_colorbar(ax, image, "signal (standard deviations)", extend="both")
    return ax
