"""Which networks attend to which, as a chord diagram.

pyCirclize draws such diagrams too. It refuses Axes that are not polar, sizes its own
labels and needs biopython (22 MB), so that these few patches are drawn here.
"""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from bsym_sklearn.analysis.attention import outgoing, top_edges
from bsym_sklearn.plotting.axes import FONT_SIZE, make_axes
from bsym_sklearn.plotting.colors import network_colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP = np.deg2rad(3)  # between networks
CHORD, RING, BARS, NAMES = 0.84, (0.85, 0.89), (0.90, 1.10), 1.13  # radii
LETTER = 0.045  # width of a letter of a name, as a share of the radius
NAME_WIDTH = 14  # letters of a line, where names stand upright
LIMIT = 1.24  # of both axes, with room for the names
TARGET_GAP = 0.05  # a ribbon begins at the ring and ends that much before it


def plot_chord(
    matrix: ArrayLike,
    networks: ArrayLike,
    *,
    ax: Axes | None = None,
    n_edges: int = 100,
    bars: ArrayLike | None = None,
    bar_label: str = "attention to other networks",
) -> Axes:
    """Draw the strongest attention between regions, or networks, around a circle.

    A ribbon has the colour of the network that attends, begins at the ring, and ends
    short of it at what is attended to. Its width says how strong it is, and it is
    hollow if the weight is negative.

    Parameters
    ----------
    matrix : array-like of shape (R, R)
        Attention between regions, or between N networks (`network_blocks`); rows
        attend to columns. What stays in a region, or network, is not drawn.
    networks : array-like of str of shape (R,)
        The network of each row.
    ax : matplotlib Axes or None, default=None
        Where to draw; a new figure if None.
    n_edges : int, default=100
        Ribbons to draw, the strongest.
    bars : array-like of shape (R,) or None, default=None
        Lengths of the bars outside the ring, at least 0. None takes what each row
        gives to other networks.
    bar_label : str, default="attention to other networks"
        What the bars are.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If the matrix is not square and finite, names or bars are not one per row, or
        a bar is negative.
    ImportError
        If matplotlib is not installed.

    References
    ----------
    .. [1] Khajehnejad et al. (2025). BrainSymphony. arXiv:2506.18314. Fig. 4.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.plotting.chords import plot_chord
    >>> attention = np.random.default_rng(0).dirichlet(np.ones(4), size=4)
    >>> ax = plot_chord(attention, ["Vis", "Vis", "Limbic", "SomMot"], n_edges=5)
    >>> [text.get_text() for text in ax.texts]
    ['Limbic', 'SomMot', 'Vis']
    """
    names = np.asarray(networks, dtype=str)
    edges = top_edges(matrix, n_edges, networks=names)  # checks both
    if bars is None:
        bars = outgoing(np.where(names == names[:, None], 0, matrix))
    lengths = np.asarray(bars, float)
    if lengths.shape != names.shape or not (lengths >= 0).all():
        raise ValueError(
            "plot_chord needs one bar per row, at least 0. Got shape "
            f"{lengths.shape} with a minimum of {lengths.min():.3g}."
        )
    ax = make_axes(ax, height=3.8)
    colors = network_colors(names)
    places = _places(names)  # (R, 2): where each row begins and ends, in radians
    limit = _draw_ring(ax, names, colors, places, lengths)
    _draw_ribbons(ax, edges, colors, places)
    ax.set(
        xlim=(-limit, limit),
        ylim=(-limit, limit),
        aspect="equal",
        xticks=[],
        yticks=[],
    )
    ax.spines[:].set_visible(False)
    strongest = edges["weight"].abs().max()
    ax.set_xlabel(
        f"ribbons: the {len(edges)} largest weights, to {strongest:.2g}\n"
        f"bars: {bar_label}, to {lengths.max():.2g}",
        fontsize=FONT_SIZE - 1,
    )
    return ax


def _places(names: np.ndarray) -> np.ndarray:
    """Return the angles between which each row lies, clockwise from the top."""
    found, codes = np.unique(names, return_inverse=True)
    gap = GAP if len(found) > 1 else 0.0
    step = (2 * np.pi - gap * len(found)) / len(names)
    rank = np.empty(len(names))
    rank[np.argsort(codes, kind="stable")] = np.arange(len(names))
    start = np.pi / 2 - (rank * step + codes * gap + gap / 2)
    return np.stack([start, start - step], axis=1)


def _draw_ring(
    ax: Axes,
    names: np.ndarray,
    colors: dict[str, str],
    places: np.ndarray,
    lengths: np.ndarray,
) -> float:
    """Draw an arc and a name per network, a bar per row; return what they reach."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Wedge

    longest = lengths.max() or 1.0
    tops = BARS[0] + (BARS[1] - BARS[0]) * lengths / longest
    drawn = [
        Wedge((0, 0), top, *np.rad2deg([end, start]), width=top - BARS[0])
        for top, (start, end) in zip(tops, places, strict=True)
    ]
    bars = PatchCollection(drawn, facecolor=[colors[n] for n in names])
    bars.set(edgecolor="face", linewidth=0.2)  # no white between equal bars
    ax.add_collection(bars)
    arcs = {n: (places[names == n].max(), places[names == n].min()) for n in colors}
    upright = any(len(n) * LETTER > (a - b) * NAMES for n, (a, b) in arcs.items())
    for name, (start, end) in arcs.items():
        angles = np.rad2deg([end, start])
        arc = Wedge((0, 0), RING[1], *angles, width=RING[1] - RING[0])
        arc.set(facecolor=colors[name], edgecolor="none")
        ax.add_patch(arc)
        _write(ax, name, (start + end) / 2, upright=upright)
    # letters keep their size when the circle shrinks to leave them room
    room = min(max(map(len, arcs)), NAME_WIDTH) * LETTER / LIMIT
    return NAMES / (1 - room) if upright else LIMIT


def _write(ax: Axes, name: str, angle: float, *, upright: bool) -> None:
    """Write a name outside the ring, along it or away from it."""
    degrees = np.rad2deg(angle) % 360
    style: dict[str, Any] = {"ha": "center", "va": "center"}
    if upright:
        left = 90 < degrees < 270
        style["ha"] = "right" if left else "left"
        turned = degrees + 180 if left else degrees
        name = fill(name, NAME_WIDTH)
    else:
        turned = degrees + 90 if degrees > 180 else degrees - 90
    radius = NAMES + (0 if upright else LETTER)
    ax.text(
        radius * np.cos(angle),
        radius * np.sin(angle),
        name,
        rotation=turned % 360,
        rotation_mode="anchor",
        fontsize=FONT_SIZE - 1,
        **style,
    )


def _draw_ribbons(
    ax: Axes, edges: pd.DataFrame, colors: dict[str, str], places: np.ndarray
) -> None:
    """Draw an arc-to-arc ribbon per edge, the strongest on top."""
    from matplotlib.patches import PathPatch

    sources, targets = _slots(edges, places)
    for i in reversed(range(len(edges))):
        color = colors[edges["source_network"].iloc[i]]
        ribbon = PathPatch(_ribbon(sources[i], targets[i]), lw=0.4, alpha=0.6)
        negative = edges["weight"].iloc[i] < 0
        ribbon.set(facecolor="none" if negative else color, edgecolor=color)
        ax.add_patch(ribbon)


def _slots(edges: pd.DataFrame, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share each row's arc among its ribbons; return both ends, (E, 2) each."""
    n = len(edges)
    weight = np.tile(edges["weight"].abs().to_numpy(float), 2)
    own = np.concatenate([edges["row"], edges["column"]]).astype(int)
    other = np.concatenate([edges["column"], edges["row"]]).astype(int)
    busiest = np.bincount(own, weight, minlength=len(places)).max() or 1.0
    start, end = places[own].T
    width = (end - start) * weight / busiest
    # Ribbons side by side, the one to the nearest row first: few of them cross.
    turn = (start - places[other, 0]) % (2 * np.pi)
    slots = np.empty((2 * n, 2))
    for row in np.unique(own):
        here = np.flatnonzero(own == row)
        here = here[np.argsort(-turn[here], kind="stable")]
        ends = np.cumsum(width[here])
        middle = (places[row].sum() - ends[-1]) / 2
        slots[here] = np.stack([middle + ends - width[here], middle + ends], axis=1)
    return slots[:n], slots[n:]


def _ribbon(source: np.ndarray, target: np.ndarray) -> Any:
    """Return the outline of a ribbon between two pairs of angles."""
    from matplotlib.path import Path

    ends = [
        _points(source, CHORD),
        _points(target, CHORD - TARGET_GAP),
    ]
    vertices = [*ends[0], (0, 0), *ends[1], (0, 0), ends[0][0]]
    bend = [Path.CURVE3, Path.CURVE3]
    n = len(ends[0]) - 1
    codes = [Path.MOVETO, *[Path.LINETO] * n, *bend, *[Path.LINETO] * n, *bend]
    return Path(vertices, codes)


def _points(angles: np.ndarray, radius: float) -> list[tuple[float, float]]:
    """Return points along an arc."""
    along = np.linspace(angles[0], angles[1], 6)
    xs, ys = radius * np.cos(along), radius * np.sin(along)
    return list(zip(xs.tolist(), ys.tolist(), strict=True))
