"""Which networks are taken for which, and what goes on between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bsym_sklearn.plotting.axes import FONT_SIZE, add_colorbar, make_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT = 3.0  # inches
MAX_WRITTEN = 8  # numbers of more networks cannot be read in a column
MISSING = "0.85"  # grey of what is not known
DARK = 0.5  # luminance below which writing has to be white


def plot_confusion(
    confusion: pd.DataFrame,
    *,
    ax: Axes | None = None,
    kind: str = "network",
    unit: str = "regions",
) -> Axes:
    r"""Draw which networks regions are taken for, or which classes scans.

    Colours and the upper numbers are per cent of a row, that is, of the regions that
    truly belong to a network; counts stand below them. Numbers are written for at most
    8 networks.

    Parameters
    ----------
    confusion : DataFrame of shape (N, N)
        Counts; rows are true and columns predicted networks, in the same order. Of
        :func:`~bsym_sklearn.analysis.networks.classify_networks`.
    ax : matplotlib Axes or None, default=None
        Where to draw; a new figure if None.
    kind, unit : str, default="network", "regions"
        What rows and columns are, and what is counted.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If rows and columns are not the same or a count is negative.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import pandas as pd
    >>> from bsym_sklearn.plotting.networks import plot_confusion
    >>> names = ["Default", "Vis"]
    >>> ax = plot_confusion(pd.DataFrame([[8, 2], [0, 5]], names, names))
    >>> [text.get_text() for text in ax.texts]
    ['80\n(8)', '20\n(2)', '', '100\n(5)']
    """
    counts = _square(confusion, "plot_confusion")
    if (counts < 0).any():
        raise ValueError(
            f"plot_confusion needs counts. Got {counts.min():g}. Pass the confusion "
            "of classify_networks."
        )
    total = counts.sum(axis=1, keepdims=True)
    share = np.full_like(counts, np.nan)
    np.divide(100 * counts, total, out=share, where=total > 0)
    ax = make_axes(ax, HEIGHT)
    image = _heat_map(ax, share, "cividis", 0, 100)
    texts = [
        [f"{s:.0f}\n({n:g})" if n else "" for s, n in zip(*row, strict=True)]
        for row in zip(share, counts, strict=True)
    ]
    if len(counts) <= MAX_WRITTEN:
        _write(ax, image, texts, FONT_SIZE - 2.5)
    _name(ax, confusion)
    ax.set(xlabel=f"predicted {kind}", ylabel=f"true {kind}")
    tidy(ax)
    add_colorbar(ax, image, f"{unit} of the true {kind} (%)")
    return ax


def plot_network_blocks(
    blocks: pd.DataFrame,
    *,
    label: str = "mean attention weight",
    limit: float | None = None,
    significant: pd.DataFrame | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw means within and between networks, or differences of such means.

    Parameters
    ----------
    blocks : DataFrame of shape (N, N)
        Values; rows attend to columns. If any is negative, colours are around zero.
    label : str, default="mean attention weight"
        Quantity and unit.
    limit : float or None, default=None
        Largest value of the colours, and for signed values minus the smallest, so that
        several pictures can share a scale. None takes it from `blocks`.
    significant : DataFrame of bool of shape (N, N) or None, default=None
        Blocks to mark with an asterisk.
    ax : matplotlib Axes or None, default=None
        Where to draw; a new figure if None.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If rows and columns are not the same networks.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import pandas as pd
    >>> from bsym_sklearn.plotting.networks import plot_network_blocks
    >>> names = ["Default", "Vis"]
    >>> ax = plot_network_blocks(pd.DataFrame([[0.2, -0.1], [0, 0.1]], names, names))
    >>> ax.images[0].get_clim()
    (-0.2, 0.2)
    """
    values = _square(blocks, "plot_network_blocks")
    finite = values[np.isfinite(values)]
    signed = bool((finite < 0).any())
    found = np.abs(finite).max(initial=0.0) if signed else finite.max(initial=0.0)
    high = float(found or 1.0) if limit is None else limit
    low = float(finite.min(initial=high)) if limit is None else 0.0
    ax = make_axes(ax, HEIGHT)
    image = _heat_map(
        ax, values, "PuOr_r" if signed else "cividis", -high if signed else low, high
    )
    if significant is not None:
        marked = significant.reindex(index=blocks.index, columns=blocks.columns)
        if marked.isna().to_numpy().any():
            raise ValueError(
                "plot_network_blocks needs `significant` for the same networks as "
                f"`blocks`, {list(blocks)}. Got {list(significant)}. Pass one mark for "
                "each block."
            )
        texts = np.where(marked.to_numpy(dtype=bool), "*", "").tolist()
        _write(ax, image, texts, FONT_SIZE + 1)
    _name(ax, blocks)
    ax.set(xlabel="attended network", ylabel="attending network")
    tidy(ax)
    outside = np.abs(finite).max(initial=0.0) > high
    extend = ("both" if signed else "max") if outside else "neither"
    add_colorbar(ax, image, label, extend=extend)
    return ax


def _square(table: pd.DataFrame, who: str) -> np.ndarray:
    """Return the values of a table whose rows and columns are the same networks."""
    if list(table.index) != list(table.columns):
        raise ValueError(
            f"{who} needs the same networks in rows and columns. Got "
            f"{list(table.index)} and {list(table.columns)}. Reindex the table."
        )
    return table.to_numpy(dtype=float)


def _heat_map(ax: Axes, values: np.ndarray, cmap: str, low: float, high: float) -> Any:
    """Draw cells with thin white lines between them; unknown ones are grey."""
    image = ax.imshow(values, cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
    ax.set_facecolor(MISSING)
    edges = np.arange(0.5, len(values) - 1)
    ax.hlines(edges, -0.5, len(values) - 0.5, color="white", lw=0.6)
    ax.vlines(edges, -0.5, len(values) - 0.5, color="white", lw=0.6)
    return image


def _write(ax: Axes, image: Any, texts: list[list[str]], size: float) -> None:
    """Write into the cells, in black or white, whichever can be read."""
    colors = image.cmap(image.norm(image.get_array()))[..., :3]
    luminance = colors @ [0.2126, 0.7152, 0.0722]
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            color = "white" if luminance[i, j] < DARK else "black"
            ax.text(
                j, i, text, ha="center", va="center", fontsize=size, color=color,
                linespacing=0.95,
            )  # fmt: skip


def _name(ax: Axes, table: pd.DataFrame) -> None:
    """Name the networks on both axes."""
    names = [str(name) for name in table.columns]
    ax.set_xticks(range(len(names)), names, rotation=90)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
