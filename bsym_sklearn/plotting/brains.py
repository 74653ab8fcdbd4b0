"""Values of regions where they lie: in a glass brain, on the cortex.

nilearn draws; its fsaverage5 surface comes with it, so that nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from bsym_sklearn.plotting.axes import add_colorbar, make_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

HEMISPHERES = ("left", "right")
# Place of each view in the Axes: hemisphere, side, left, bottom.
VIEWS = (
    ("left", "lateral", 0.0, 0.5),
    ("right", "lateral", 0.5, 0.5),
    ("left", "medial", 0.0, 0.0),
    ("right", "medial", 0.5, 0.0),
)
MARKERS = (4.0, 30.0)  # smallest and largest area of a marker, in square points
ATLAS_REACH = 4.0  # from the middle of the grey matter to a voxel of an atlas, in mm
MARKER_ROOM = 2400.0  # that all of them share


def plot_glass_brain(
    values: ArrayLike,
    coordinates: ArrayLike,
    *,
    ax: Axes | None = None,
    label: str = "value",
) -> Axes:
    """Draw a coloured dot per region into a see-through brain.

    Parameters
    ----------
    values : array-like of shape (R,)
        One per region; NaN is left out. With negative ones, colours are around zero.
    coordinates : array-like of shape (R, 3)
        In mm, MNI space.
    ax : matplotlib Axes or None, default=None
        Where to draw; a new figure if None.
    label : str, default="value"
        Quantity and unit.

    Returns
    -------
    matplotlib Axes
        Around those of nilearn.

    Raises
    ------
    ValueError
        If the shapes do not fit each other, or nothing is finite.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> from bsym_sklearn.plotting.brains import plot_glass_brain
    >>> ax = plot_glass_brain([0.1, 0.4], [[-30, 0, 20], [30, 0, 20]])
    >>> ax.figure.axes[1].get_ylabel()
    'value'
    """
    values, places = _check_places("plot_glass_brain", values, coordinates)
    ax = make_axes(ax, height=1.35)
    from nilearn.plotting import plot_markers

    ax.set_axis_off()
    colors = _color_scale(values)
    add_colorbar(ax, colors, label)
    known = np.isfinite(values)
    low, high = colors.get_clim()
    plot_markers(
        values[known],
        places[known],
        node_size=float(np.clip(MARKER_ROOM / known.sum(), *MARKERS)),
        node_cmap=colors.cmap,
        node_vmin=low,
        node_vmax=high,
        alpha=0.9,
        display_mode="lzr",
        figure=ax.figure,
        axes=ax,
        annotate=False,
        colorbar=False,
    )
    return ax


def plot_surface(
    values: ArrayLike,
    coordinates: ArrayLike | None = None,
    *,
    atlas: Any = None,
    atlas_labels: ArrayLike | None = None,
    ax: Axes | None = None,
    label: str = "value",
    max_distance: float = 20.0,
) -> Axes:
    """Draw the values of regions on both hemispheres of fsaverage5.

    A vertex has the value of its region in an atlas, or, without one, of the nearest
    region on its side. What belongs to no region is grey.

    Parameters
    ----------
    values : array-like of shape (R,)
        One per region. With negative ones, colours are around zero.
    coordinates : array-like of shape (R, 3) or None, default=None
        Centres of the regions in mm, MNI space. Leave out subcortical ones, which may
        lie near the medial wall. This or `atlas` is needed.
    atlas : str, Path, image or None, default=None
        3-D NIfTI image of integers in MNI space; 0 is no region.
    atlas_labels : array-like of int of shape (R,) or None, default=None
        The number of each region in the atlas, 1 to R by default.
    ax : matplotlib Axes or None, default=None
        Where to draw; a new figure if None.
    label : str, default="value"
        Quantity and unit.
    max_distance : float, default=20.0
        From a vertex to the centre of its region, in mm.

    Returns
    -------
    matplotlib Axes
        Around those of the four views, which are its ``child_axes``.

    Raises
    ------
    ValueError
        If not one of `coordinates` and `atlas` is given, or shapes do not fit.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> from bsym_sklearn.plotting.brains import plot_surface
    >>> ax = plot_surface([0.1, 0.4], [[-50, -20, 20], [50, -20, 20]])
    >>> len(ax.child_axes)
    4
    """
    values = np.asarray(values, float)
    if (coordinates is None) == (atlas is None):
        raise ValueError(
            "plot_surface needs `coordinates` or `atlas`. Got "
            f"{'neither' if atlas is None else 'both'}. Pass one of them."
        )
    ax = make_axes(ax, height=2.6)
    from nilearn.datasets import fetch_surf_fsaverage

    mesh = fetch_surf_fsaverage("fsaverage5")  # a part of nilearn
    if atlas is not None:
        owners = {h: _of_atlas(mesh, h, atlas) for h in HEMISPHERES}
        drawn = _by_label(values, owners, atlas_labels)
    else:
        values, places = _check_places("plot_surface", values, coordinates)
        drawn = {
            h: _by_distance(values, places, mesh[f"pial_{h}"], h, max_distance)
            for h in HEMISPHERES
        }
    ax.set_axis_off()
    colors = _color_scale(values)
    add_colorbar(ax, colors, label)
    for hemisphere, side, left, bottom in VIEWS:
        view = ax.inset_axes((left, bottom, 0.5, 0.5), projection="3d")
        _draw_view(view, mesh, hemisphere, side, drawn[hemisphere], colors)
    return ax


def _draw_view(
    view: Any,
    mesh: Any,
    hemisphere: str,
    side: str,
    drawn: np.ndarray,
    colors: ScalarMappable,
) -> None:
    """Draw one side of one hemisphere into 3-D Axes."""
    from nilearn.plotting import plot_surf_stat_map

    low, high = colors.get_clim()
    plot_surf_stat_map(
        mesh[f"infl_{hemisphere}"],
        drawn,
        hemi=hemisphere,
        view=side,
        bg_map=mesh[f"sulc_{hemisphere}"],
        engine="matplotlib",
        cmap=colors.cmap,
        vmin=low,
        vmax=high,
        symmetric_cbar=False,
        colorbar=False,
        axes=view,
        figure=view.figure,
    )
    view.set_box_aspect((1, 1, 1), zoom=1.6)


def _by_distance(
    values: np.ndarray,
    places: np.ndarray,
    mesh: str,
    hemisphere: str,
    max_distance: float,
) -> np.ndarray:
    """Return the value of the nearest region of this side at each vertex."""
    from nilearn.surface import load_surf_mesh

    vertices = load_surf_mesh(mesh).coordinates
    here = places[:, 0] <= 0 if hemisphere == "left" else places[:, 0] >= 0
    drawn = np.full(len(vertices), np.nan)
    if here.any():
        distance, nearest = cKDTree(places[here]).query(vertices)
        near = distance <= max_distance
        drawn[near] = values[here][nearest[near]]
    return drawn


def _of_atlas(mesh: Any, hemisphere: str, atlas: Any) -> np.ndarray:
    """Return the number of the nearest region at each vertex, 0 for none.

    nilearn's vol_to_surf leaves holes where a fold lies between labelled voxels.
    """
    from nilearn.image import load_img
    from nilearn.surface import load_surf_mesh

    image = load_img(str(atlas) if isinstance(atlas, Path) else atlas)
    numbers = np.rint(np.asarray(image.dataobj)).astype(int)
    voxels = np.argwhere(numbers > 0)
    places = voxels @ image.affine[:3, :3].T + image.affine[:3, 3]
    layers = (load_surf_mesh(mesh[f"{x}_{hemisphere}"]) for x in ("pial", "white"))
    middle = np.mean([layer.coordinates for layer in layers], axis=0)
    distance, nearest = cKDTree(places).query(middle)
    found = numbers[tuple(voxels[nearest].T)]
    return np.where(distance <= ATLAS_REACH, found, 0)


def _by_label(
    values: np.ndarray, owners: dict[str, np.ndarray], labels: ArrayLike | None
) -> dict[str, np.ndarray]:
    """Return the value of the region at each vertex, by hemisphere."""
    numbers = np.arange(1, len(values) + 1) if labels is None else np.asarray(labels)
    if numbers.shape != values.shape:
        raise ValueError(
            "plot_surface needs one number in `atlas_labels` per value. Got shapes "
            f"{numbers.shape} and {values.shape}."
        )
    size = max([numbers.max(), *(owner.max() for owner in owners.values())]) + 1
    table = np.full(size, np.nan)
    table[numbers] = values
    table[0] = np.nan
    return {hemisphere: table[owner] for hemisphere, owner in owners.items()}


def _check_places(
    who: str, values: ArrayLike, coordinates: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return one finite place per value."""
    array, places = np.asarray(values, float), np.asarray(coordinates, float)
    if array.ndim != 1 or places.shape != (len(array), 3):
        raise ValueError(
            f"{who} needs values of shape (R,) and coordinates of shape (R, 3), in mm. "
            f"Got {array.shape} and {places.shape}. Average over scans first."
        )
    if not np.isfinite(array).any() or not np.isfinite(places).all():
        raise ValueError(
            f"{who} needs a finite value, and finite coordinates. Got "
            f"{np.isfinite(array).sum()} values and {np.isfinite(places).all(1).sum()} "
            f"places of {len(array)}. Leave out regions without a place."
        )
    return array, places


def _color_scale(values: np.ndarray) -> ScalarMappable:
    """Return colours from the least to the largest value, or around zero."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    signed = low < 0
    if signed:
        high = max(-low, high)
        low = -high
    return ScalarMappable(Normalize(low, high), "PuOr_r" if signed else "viridis")
