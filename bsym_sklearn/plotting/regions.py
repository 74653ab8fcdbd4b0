"""One value per region: as bars, by network, as a map of the gate, on the brain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from bsym_sklearn.plotting.axes import FONT_SIZE, GREY, add_colorbar, make_axes, tidy
from bsym_sklearn.plotting.brains import plot_glass_brain, plot_surface
from bsym_sklearn.plotting.colors import network_colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "plot_gate",
    "plot_glass_brain",
    "plot_incoming",
    "plot_network_bars",
    "plot_surface",
]


def plot_incoming(
    values: ArrayLike,
    networks: ArrayLike,
    *,
    ax: Axes | None = None,
    label: str = "incoming attention",
) -> Axes:
    """Draw a bar per region, side by side with those of its network.

    Parameters
    ----------
    values : array-like of shape (R,)
        From :func:`~bsym_sklearn.analysis.attention.incoming`, averaged over scans, or
        any other value of regions.
    networks : array-like of str of shape (R,)
        The network of each region.
    ax : matplotlib Axes or None, default=None
        Where to draw; a new figure if None.
    label : str, default="incoming attention"
        Quantity and unit. A dashed line marks its mean, which is 1 / R for attention
        that sums to one.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If there is not one name per value.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> from bsym_sklearn.plotting.regions import plot_incoming
    >>> ax = plot_incoming([0.2, 0.5, 0.3], ["Vis", "Limbic", "Vis"])
    >>> [tick.get_text() for tick in ax.get_xticklabels()]
    ['Limbic', 'Vis']
    """
    values, names = _check_values("plot_incoming", values, networks)
    order = np.argsort(names, kind="stable")
    colors = network_colors(names)
    ax = make_axes(ax, height=2.2)
    ax.bar(
        np.arange(len(values)),
        values[order],
        width=1.0,
        color=[colors[name] for name in names[order]],
    )
    mean = float(np.nanmean(values))
    ax.axhline(mean, color="black", lw=0.7, ls="--", label=f"mean {mean:.2g}")
    _name_networks(ax, names[order])
    ax.set(xlim=(-0.5, len(values) - 0.5), ylabel=label)
    ax.margins(y=0.08)
    _short_numbers(ax)
    tidy(ax)
    ax.tick_params(axis="x", length=0)
    ax.legend(
        frameon=False,
        fontsize=FONT_SIZE - 1,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        borderaxespad=0.0,
    )
    return ax


def plot_network_bars(
    values: pd.Series | pd.DataFrame,
    *,
    ax: Axes | None = None,
    label: str = "incoming attention per region",
) -> Axes:
    """Draw a bar per network, with a dot per scan.

    Parameters
    ----------
    values : Series of length N or DataFrame of shape (n, N)
        From :func:`~bsym_sklearn.analysis.attention.network_bars`. Of several scans
        the bar is the mean.
    ax : matplotlib Axes or None, default=None
        Where to draw; a new figure if None.
    label : str, default="incoming attention per region"
        Quantity and unit.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import pandas as pd
    >>> from bsym_sklearn.plotting.regions import plot_network_bars
    >>> ax = plot_network_bars(pd.DataFrame({"Limbic": [1.0, 2.0], "Vis": [3.0, 3.0]}))
    >>> [float(bar.get_height()) for bar in ax.patches]
    [1.5, 3.0]
    """
    scans = pd.DataFrame(values)
    table = scans if isinstance(values, pd.DataFrame) else scans.T
    names = [str(name) for name in table.columns]
    colors = network_colors(names)
    ax = make_axes(ax, height=2.2)
    places = np.arange(len(names))
    ax.bar(places, table.mean(), width=0.75, color=[colors[name] for name in names])
    n_scans = len(table)
    if n_scans > 1:
        spread = np.linspace(-0.25, 0.25, n_scans)  # so that dots do not hide another
        ax.plot(
            (places[:, None] + spread).T,
            table.to_numpy(float),
            "o",
            ms=1.8,
            mfc="white",
            mec="black",
            mew=0.4,
            alpha=0.7,
        )
        ax.set_title(
            f"bars: mean of {n_scans} scans", loc="right", fontsize=FONT_SIZE - 1
        )
    ax.axhline(0, color="black", lw=0.6)
    ax.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_ylabel(label)
    _short_numbers(ax)
    tidy(ax)
    return ax


def plot_gate(
    values: ArrayLike,
    networks: ArrayLike | None = None,
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw how much of each region's embedding comes from fMRI, not the connectome.

    Parameters
    ----------
    values : array-like of shape (n, R) or (R,)
        From :func:`~bsym_sklearn.analysis.attention.gate_values`. Scans with one
        modality (NaN) are grey.
    networks : array-like of str of shape (R,) or None, default=None
        The network of each region. Regions are put in their order, with lines and
        names.
    ax : matplotlib Axes or None, default=None
        Where to draw; a new figure if None.

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
    >>> from bsym_sklearn.plotting.regions import plot_gate
    >>> ax = plot_gate([[0.4, 0.7, 0.5]], ["Vis", "Limbic", "Vis"])
    >>> ax.images[0].get_array().tolist()
    [[0.7, 0.4, 0.5]]
    """
    gate = np.atleast_2d(np.asarray(values, float))
    n_regions = gate.shape[-1]
    names = np.asarray([""] * n_regions if networks is None else networks, dtype=str)
    if gate.ndim != 2 or len(names) != n_regions:
        raise ValueError(
            "plot_gate needs values of shape (n, R) and one network per region. Got "
            f"{gate.shape} and {len(names)} networks."
        )
    order = np.argsort(names, kind="stable")
    ax = make_axes(ax, height=2.2 if len(gate) > 1 else 1.5)
    ax.set_facecolor(GREY)
    reach = np.nanmax(np.abs(gate - 0.5)) if np.isfinite(gate).any() else 0.5
    image = ax.imshow(
        gate[:, order],
        aspect="auto",
        cmap="PuOr",
        vmin=0.5 - reach,
        vmax=0.5 + reach,
        interpolation="nearest",
    )
    if networks is None:
        ax.set_xlabel("region")
    else:
        _name_networks(ax, names[order])
    ax.set_ylabel("scan")
    if len(gate) == 1:
        ax.set(yticks=[], ylabel="")
    else:
        ax.locator_params(axis="y", integer=True)
    tidy(ax)
    ax.tick_params(axis="x", length=0)
    ax.spines[:].set_visible(False)
    add_colorbar(ax, image, "share of fMRI")
    return ax


def _check_values(
    who: str, values: ArrayLike, networks: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Return one value and one name per region."""
    array, names = np.asarray(values, float), np.asarray(networks, dtype=str)
    if array.ndim != 1 or array.shape != names.shape:
        raise ValueError(
            f"{who} needs one value and one network per region. Got shapes "
            f"{array.shape} and {names.shape}. Average over scans first."
        )
    return array, names


def _name_networks(ax: Axes, networks: np.ndarray) -> None:
    """Separate and name the networks on the x axis; `networks` is sorted."""
    names, first, sizes = np.unique(networks, return_index=True, return_counts=True)
    for start in first[1:]:
        ax.axvline(start - 0.5, color="white", lw=0.8)
    ax.set_xticks(
        first + (sizes - 1) / 2,
        names.tolist(),
        rotation=45,
        ha="right",
        rotation_mode="anchor",
    )


def _short_numbers(ax: Any) -> None:
    """Write small numbers of the y axis with one common power of ten."""
    ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 4), useMathText=True)
    ax.yaxis.get_offset_text().set_fontsize(FONT_SIZE - 1)
