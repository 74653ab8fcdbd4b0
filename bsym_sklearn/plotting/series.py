"""Scans and connectomes beside what was reconstructed of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from bsym_sklearn.plotting.axes import (
    BLUE,
    FONT_SIZE,
    ORANGE,
    add_colorbar,
    make_axes,
    tidy,
)
from bsym_sklearn.plotting.reconstruction import LIMIT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP = 0.12  # between two pictures in one Axes, as a share of one
STEP = 5.0  # between the zero lines of two regions, in standard deviations
N_COURSES = 4
N_BINS = 40
PALE = "#E8E8E8"


def plot_carpet(
    scan: ArrayLike,
    decoded: ArrayLike | None = None,
    *,
    ax: Axes | None = None,
    networks: Sequence[str] | None = None,
    t_r: float | None = None,
) -> Axes:
    """Draw a scan as a carpet, regions as rows, with its reconstruction below it.

    Parameters
    ----------
    scan : array-like of shape (n_timepoints, n_regions)
        Series in standard deviations.
    decoded : array-like of shape (n_timepoints, n_regions) or None, default=None
        What ``reconstruct`` returns.
    ax : matplotlib Axes or None, default=None
        Where to draw; a new figure if None.
    networks : sequence of str of length n_regions or None, default=None
        Network of each region; rows are sorted by it.
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
    >>> from bsym_sklearn.plotting.series import plot_carpet
    >>> scan = np.random.default_rng(0).normal(size=(30, 6))
    >>> ax = plot_carpet(scan, scan / 2, networks=list("aabbbb"))
    >>> [image.get_array().shape for image in ax.images]
    [(6, 30), (6, 30)]
    """
    parts = {"recorded": np.asarray(scan, float)}
    if decoded is not None:
        parts["reconstructed"] = np.asarray(decoded, float)
    _check_series("plot_carpet", list(parts.values()))
    n_timepoints, n_regions = parts["recorded"].shape
    order, borders = _sort_by_network("plot_carpet", networks, n_regions)
    ax = make_axes(ax, height=1.3 + 1.2 * len(parts))
    duration = n_timepoints * (1.0 if t_r is None else t_r)
    step = n_regions * (1 + GAP)
    for k, (title, values) in enumerate(parts.items()):
        image = ax.imshow(
            values[:, order].T,
            extent=(0, duration, k * step + n_regions, k * step),
            aspect="auto",
            cmap="PuOr_r",
            vmin=-LIMIT,
            vmax=LIMIT,
            interpolation="nearest",
        )
        _title(ax, title, duration / 2, k * step)
        for _, first, _ in borders[1:]:
            ax.plot([0, duration], [k * step + first] * 2, color="white", lw=0.8)
    ax.set(
        xlim=(0, duration),
        ylim=((len(parts) - 1) * step + n_regions, 0),
        xlabel="time point" if t_r is None else "time (s)",
        ylabel="region" if networks is None else "",
    )
    places = [(k * step, one) for k in range(len(parts)) for one in borders]
    ax.set_yticks(
        [top + (first + last) / 2 for top, (_, first, last) in places],
        [name for _, (name, _, _) in places],
    )
    tidy(ax)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    add_colorbar(ax, image, "signal (standard deviations)", extend="both")
    return ax


def plot_time_courses(
    scan: ArrayLike,
    decoded: ArrayLike,
    hidden: ArrayLike | None = None,
    *,
    ax: Axes | None = None,
    regions: Sequence[int] | None = None,
    labels: Sequence[str] | None = None,
    t_r: float | None = None,
) -> Axes:
    """Draw the series of a few regions and what was reconstructed of them.

    Parameters
    ----------
    scan : array-like of shape (n_timepoints, n_regions)
        Series in standard deviations.
    decoded : array-like of shape (n_timepoints, n_regions)
        What ``reconstruct`` returns.
    hidden : array-like of bool of shape (n_timepoints, n_regions) or (n_regions,), \
            or None, default=None
        True where the value, or the whole region, was hidden from the model; shaded.
    ax : matplotlib Axes or None, default=None
        Where to draw; a new figure if None.
    regions : sequence of int or None, default=None
        Which to draw; None takes the first four of those that are hidden most.
    labels : sequence of str of length n_regions or None, default=None
        Names of the regions.
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
    >>> from bsym_sklearn.plotting.series import plot_time_courses
    >>> scan = np.random.default_rng(0).normal(size=(30, 6))
    >>> ax = plot_time_courses(scan, scan / 2, np.arange(6) == 3, regions=[3, 0])
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['3', '0']
    """
    scan, decoded = np.asarray(scan, float), np.asarray(decoded, float)
    _check_series("plot_time_courses", [scan, decoded])
    mask = _as_mask("plot_time_courses", hidden, scan.shape)
    if regions is None:
        most = np.argsort(-mask.mean(axis=0), kind="stable")
        regions = sorted(most[:N_COURSES].tolist())
    names = _names("plot_time_courses", labels, scan.shape[1])
    seconds = np.arange(len(scan)) * (1.0 if t_r is None else t_r)
    ax = make_axes(ax, height=0.9 + 0.55 * len(regions))
    for k, r in enumerate(regions):
        level = -k * STEP
        ax.fill_between(
            seconds,
            level - STEP / 2,
            level + STEP / 2,
            where=_widened(mask[:, r]),
            color=PALE,
            lw=0,
            label="hidden from the model" if mask.any() and k == 0 else None,
        )
        ax.plot(
            *(seconds, scan[:, r] + level),
            color=BLUE,
            lw=1.3,  # seen on both sides of a line that lies on it
            label="recorded" if k == 0 else None,
        )
        ax.plot(
            *(seconds, decoded[:, r] + level),
            color=ORANGE,
            lw=0.7,
            label="reconstructed" if k == 0 else None,
        )
    drawn = [x[:, regions] - STEP * np.arange(len(regions)) for x in (scan, decoded)]
    lowest = min(-(len(regions) - 0.5) * STEP, float(np.min(drawn)))
    highest = max(STEP / 2, float(np.max(drawn)))
    ax.set(
        xlim=(seconds[0], seconds[-1]),
        ylim=(lowest, highest),
        xlabel="time point" if t_r is None else "time (s)",
        ylabel=f"region (lines {STEP:g} SD apart)",
    )
    ax.set_yticks([-k * STEP for k in range(len(regions))], [names[r] for r in regions])
    tidy(ax)
    ax.tick_params(axis="y", length=0)
    _legend_above(ax)
    return ax


def plot_connectomes(
    observed: ArrayLike,
    reconstructed: ArrayLike,
    *,
    ax: Axes | None = None,
    networks: Sequence[str] | None = None,
    label: str = "connection weight (scaled)",
) -> Axes:
    """Draw two connectomes side by side, in the same colours.

    Parameters
    ----------
    observed : array-like of shape (n_regions, n_regions)
        Weights.
    reconstructed : array-like of shape (n_regions, n_regions)
        What ``reconstruct(X, modality="sc")`` returns of it.
    ax : matplotlib Axes or None, default=None
        Where to draw; a new figure if None.
    networks : sequence of str of length n_regions or None, default=None
        Network of each region; regions are sorted by it.
    label : str, default="connection weight (scaled)"
        Quantity and unit.

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
    >>> from bsym_sklearn.plotting.series import plot_connectomes
    >>> ax = plot_connectomes(np.eye(4), np.eye(4) / 2)
    >>> [text.get_text() for text in ax.texts]
    ['observed', 'reconstructed']
    """
    observed, reconstructed = (
        np.asarray(observed, float),
        np.asarray(reconstructed, float),
    )
    n = len(observed)
    if observed.shape != (n, n) or reconstructed.shape != (n, n):
        raise ValueError(
            "plot_connectomes needs two square matrices of one size. Got "
            f"{observed.shape} and {reconstructed.shape}."
        )
    order, borders = _sort_by_network("plot_connectomes", networks, n)
    low, high = _limits(observed)
    ax = make_axes(ax, height=1.8)
    step = n * (1 + GAP)
    parts = {"observed": observed, "reconstructed": reconstructed}
    for k, (title, matrix) in enumerate(parts.items()):
        image = ax.imshow(
            matrix[np.ix_(order, order)],
            extent=(k * step, k * step + n, n, 0),
            cmap="viridis" if low == 0 else "PuOr_r",
            vmin=low,
            vmax=high,
            interpolation="nearest",
        )
        _title(ax, title, k * step + n / 2, 0)
        for _, first, _ in borders[1:]:
            ax.plot([k * step, k * step + n], [first, first], color="white", lw=0.5)
            ax.plot([k * step + first] * 2, [0, n], color="white", lw=0.5)
    ax.set(xlim=(0, step + n), ylim=(n, 0), xticks=[], xlabel="region")
    ax.set_yticks([(a + b) / 2 for _, a, b in borders], [name for name, *_ in borders])
    if networks is None:
        ax.set_ylabel("region")
    tidy(ax)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    add_colorbar(ax, image, label, extend="max" if low == 0 else "both")
    return ax


def plot_weight_distribution(
    observed: ArrayLike,
    reconstructed: ArrayLike,
    *,
    ax: Axes | None = None,
    label: str = "connection weight (scaled)",
) -> Axes:
    """Draw how often each weight occurs, among observed and reconstructed edges.

    Parameters
    ----------
    observed : array-like of shape (n_regions, n_regions) or (n, n_regions, n_regions)
        Connectomes; each edge counts once and the diagonal does not. NaN is left out.
    reconstructed : array-like of the same shape
        What ``reconstruct(X, modality="sc")`` returns of them.
    ax : matplotlib Axes or None, default=None
        Where to draw; a new figure if None.
    label : str, default="connection weight (scaled)"
        Quantity and unit.

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
    >>> from bsym_sklearn.plotting.series import plot_weight_distribution
    >>> ax = plot_weight_distribution(np.ones((3, 3)), np.zeros((3, 3)))
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['observed', 'reconstructed']
    """
    observed, reconstructed = (
        np.asarray(observed, float),
        np.asarray(reconstructed, float),
    )
    square = observed.ndim in (2, 3) and observed.shape[-1] == observed.shape[-2]
    if not square or observed.shape != reconstructed.shape:
        raise ValueError(
            "plot_weight_distribution needs two arrays of one shape, (n_regions, "
            f"n_regions) or (n, n_regions, n_regions). Got {observed.shape} and "
            f"{reconstructed.shape}."
        )
    pair = [_edges(observed), _edges(reconstructed)]
    ax = make_axes(ax, height=2.0)
    bins = np.histogram_bin_edges(np.concatenate(pair), bins=N_BINS)
    looks: list[dict[str, Any]] = [
        {"histtype": "stepfilled", "color": BLUE, "alpha": 0.3},
        {"histtype": "step", "color": ORANGE, "lw": 1.2},
    ]
    titles = ("observed", "reconstructed")
    for values, title, look in zip(pair, titles, looks, strict=True):
        share = np.full(len(values), 1 / max(len(values), 1))
        ax.hist(values, bins=bins.tolist(), weights=share, label=title, **look)
    ax.set(xlabel=label, ylabel="share of edges")
    tidy(ax)
    ax.legend(fontsize=FONT_SIZE - 1, frameon=False)
    return ax


def _check_series(who: str, series: Sequence[np.ndarray]) -> None:
    """Raise unless all are series of one shape."""
    shapes = [values.shape for values in series]
    if len(shapes[0]) != 2 or len(set(shapes)) > 1:
        raise ValueError(
            f"{who} needs series of one shape (n_timepoints, n_regions). Got "
            f"{' and '.join(map(str, shapes))}."
        )


def _as_mask(who: str, hidden: ArrayLike | None, shape: tuple[int, ...]) -> np.ndarray:
    """Return a mask of the shape of the scan."""
    if hidden is None:
        return np.zeros(shape, dtype=bool)
    mask = np.asarray(hidden, bool)
    if mask.shape not in (shape, shape[1:]):
        raise ValueError(
            f"{who} needs hidden of shape {shape} or {shape[1:]}. Got {mask.shape}."
        )
    return np.broadcast_to(mask, shape)


def _names(who: str, labels: Sequence[str] | None, n: int) -> list[str]:
    """Return the names of the regions, numbers if there are none."""
    names = [str(name) for name in (range(n) if labels is None else labels)]
    if len(names) != n:
        raise ValueError(
            f"{who} needs one name per region. Got {len(names)} for {n} regions."
        )
    return names


def _sort_by_network(
    who: str, networks: Sequence[str] | None, n: int
) -> tuple[np.ndarray, list[tuple[str, int, int]]]:
    """Return the order of the regions, and name, first and end row per network."""
    if networks is None:
        return np.arange(n), []
    members = np.array(_names(who, networks, n))
    order = np.argsort(members, kind="stable")
    names, first, count = np.unique(
        members[order], return_index=True, return_counts=True
    )
    borders = zip(names.tolist(), first.tolist(), (first + count).tolist(), strict=True)
    return order, list(borders)


def _widened(hidden: np.ndarray) -> np.ndarray:
    """Return hidden time points and their neighbours: the gap in the visible line."""
    wide = hidden.copy()
    wide[1:] |= hidden[:-1]
    wide[:-1] |= hidden[1:]
    return wide


def _limits(weights: np.ndarray) -> tuple[float, float]:
    """Return the ends of the colours: from 0, or around it if there are signs."""
    finite = weights[np.isfinite(weights)]
    high = float(np.quantile(np.abs(finite), 0.99)) if finite.size else 1.0
    high = high or 1.0
    return (0.0 if (finite >= 0).all() else -high), high


def _edges(weights: np.ndarray) -> np.ndarray:
    """Return each edge of each connectome once."""
    first, second = np.triu_indices(weights.shape[-1], 1)
    values = weights[..., first, second].ravel()
    return values[np.isfinite(values)]


def _title(ax: Axes, text: str, x: float, y: float) -> None:
    """Write what a picture in an Axes is, above it."""
    ax.annotate(
        text,
        (x, y),
        (0, 2),
        textcoords="offset points",
        ha="center",
        fontsize=FONT_SIZE,
    )


def _legend_above(ax: Axes) -> None:
    """Put the legend above the Axes, in one line."""
    ax.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=3,
        fontsize=FONT_SIZE - 1.5,
        frameon=False,
        handlelength=1.2,
        columnspacing=0.8,
    )
