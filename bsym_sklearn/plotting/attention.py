"""Who attends to whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from bsym_sklearn.plotting.axes import FONT_SIZE, add_colorbar, make_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PERCENTILES = (1, 99)  # of the colours: a few pairs would hide the rest
MAX_LABELS = 30  # more cannot be read in a column


def plot_attention(
    matrix: ArrayLike,
    *,
    ax: Axes | None = None,
    labels: Sequence[str] | None = None,
    networks: Sequence[str] | None = None,
) -> Axes:
    """Draw a map of attention; rows attend to columns.

    Parameters
    ----------
    matrix : array-like of shape (n_regions, n_regions)
        From ``attention(X)``, of one scan or averaged. Signed maps get colours
        around zero.
    ax : matplotlib Axes or None, default=None
        Where to draw; a new figure if None.
    labels : sequence of str or None, default=None
        Names of the regions; shown if there are at most 30.
    networks : sequence of str or None, default=None
        The network of each region. Regions are put in their order, with lines and
        names.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If the matrix is not square or the names are not one per region.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.plotting import plot_attention
    >>> attention = np.random.default_rng(0).dirichlet(np.ones(4), size=4)
    >>> ax = plot_attention(attention, networks=["b", "a", "b", "a"])
    >>> [tick.get_text() for tick in ax.get_yticklabels()]
    ['a', 'b']
    """
    matrix = np.asarray(matrix, float)
    names = labels if labels is not None else networks
    for given in (matrix, *(n for n in (labels, networks) if n is not None)):
        if matrix.shape != (len(given), len(given)):
            raise ValueError(
                "plot_attention needs a square matrix and one name per region. Got a "
                f"matrix of shape {matrix.shape} and {len(given)} names or rows."
            )
    order = np.arange(len(matrix))
    if networks is not None:
        order = np.argsort(np.asarray(networks, dtype=str), kind="stable")
    ax = make_axes(ax, height=3.0)
    signed = bool((matrix < 0).any())
    low, high = np.nanpercentile(matrix, PERCENTILES)
    if signed:
        high = max(-low, high)
        low = -high
    image = ax.imshow(
        matrix[np.ix_(order, order)],
        cmap="PuOr_r" if signed else "cividis",
        vmin=low,
        vmax=high,
        interpolation="nearest",
    )
    ax.set(xlabel="attended region", ylabel="attending region", xticks=[], yticks=[])
    if networks is not None:
        _mark_networks(ax, np.asarray(networks, dtype=str)[order])
    elif names is not None and len(names) <= MAX_LABELS:
        ax.set_xticks(order, names, rotation=90)
        ax.set_yticks(order, names)
    tidy(ax)
    add_colorbar(ax, image, "attention weight", extend="both")
    return ax


def _mark_networks(ax: Axes, networks: np.ndarray) -> None:
    """Separate and name the networks; `networks` is sorted."""
    names, first, sizes = np.unique(networks, return_index=True, return_counts=True)
    for start in first[1:]:
        ax.axhline(start - 0.5, color="white", lw=0.8)
        ax.axvline(start - 0.5, color="white", lw=0.8)
    middles = first + (sizes - 1) / 2
    upright = len(names) > 2 or len("".join(names)) > 4 * FONT_SIZE
    ax.set_xticks(middles, names, rotation=90 if upright else 0)
    ax.set_yticks(middles, names, rotation=0 if upright else 90, va="center")
    ax.tick_params(length=0)
