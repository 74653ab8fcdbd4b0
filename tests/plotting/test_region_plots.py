from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("matplotlib", reason="the pictures need matplotlib")
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from bsym_sklearn.plotting.brains import _by_distance, _by_label, _of_atlas
from bsym_sklearn.plotting.colors import network_colors
from bsym_sklearn.plotting.regions import (
    plot_gate,
    plot_glass_brain,
    plot_incoming,
    plot_network_bars,
    plot_surface,
)

COLUMN_WIDTH = 3.5  # inches
NETWORKS = ["Vis", "Default", "Vis", "SalVentAttn", "Default"]
PLACES = [[-40, -60, 10], [-40, 30, 20], [40, -60, 10], [45, 10, 5], [40, 30, 20]]


@pytest.fixture
def ax():
    return Figure(figsize=(COLUMN_WIDTH, 2.2), layout="constrained").subplots()


@pytest.fixture
def mesh() -> dict[str, str]:
    from nilearn.datasets import fetch_surf_fsaverage

    return fetch_surf_fsaverage("fsaverage5")


def test_incoming_is_grouped_and_coloured_by_network(ax, fits_its_figure) -> None:
    values = [0.1, 0.2, 0.3, 0.15, 0.25]
    assert plot_incoming(values, NETWORKS, ax=ax) is ax
    heights = [bar.get_height() for bar in ax.patches]
    assert heights == [0.2, 0.25, 0.15, 0.1, 0.3]
    colors = network_colors(NETWORKS)
    names = ["Default", "Default", "SalVentAttn", "Vis", "Vis"]
    drawn = [to_hex(bar.get_facecolor()) for bar in ax.patches]
    assert drawn == [colors[name].lower() for name in names]
    assert [t.get_text() for t in ax.get_xticklabels()] == sorted(set(NETWORKS))
    assert ax.get_xticks().tolist() == [0.5, 2.0, 3.5]
    assert ax.lines[0].get_ydata()[0] == pytest.approx(0.2)
    assert ax.get_legend().get_texts()[0].get_text() == "mean 0.2"
    assert fits_its_figure(ax)


def test_incoming_takes_signs_and_refuses_stacks(ax) -> None:
    plot_incoming([-1, 2, 0.5, 1, -2], NETWORKS, ax=ax, label="log-odds lost")
    assert ax.get_ylabel() == "log-odds lost"
    assert ax.get_ylim()[0] < -2
    with pytest.raises(ValueError, match=r"Got shapes \(2, 5\) and \(5,\)"):
        plot_incoming(np.ones((2, 5)), NETWORKS)


def test_network_bars_show_every_scan(ax, rng, fits_its_figure) -> None:
    table = pd.DataFrame(rng.random((6, 3)), columns=["Default", "Limbic", "Vis"])
    assert plot_network_bars(table, ax=ax) is ax
    np.testing.assert_allclose([b.get_height() for b in ax.patches], table.mean())
    dots = np.array([line.get_ydata() for line in ax.lines[:3]])
    np.testing.assert_array_equal(dots, table.T)
    assert ax.get_title(loc="right") == "bars: mean of 6 scans"
    assert fits_its_figure(ax)


def test_network_bars_of_one_map_have_no_dots(ax, fits_its_figure) -> None:
    plot_network_bars(pd.Series({"Default": 0.002, "Vis": 0.003}), ax=ax)
    assert [bar.get_height() for bar in ax.patches] == [0.002, 0.003]
    assert len(ax.lines) == 1  # zero
    assert ax.get_title(loc="right") == ""
    assert fits_its_figure(ax)


def test_gate_has_colours_around_one_half_and_grey_for_nothing(
    ax, rng, fits_its_figure
) -> None:
    gate = rng.uniform(0.3, 0.6, (4, 5))
    gate[1] = np.nan
    assert plot_gate(gate, NETWORKS, ax=ax) is ax
    image = ax.images[0]
    low, high = image.get_clim()
    assert low + high == pytest.approx(1)
    order = [1, 4, 3, 0, 2]
    drawn = image.get_array()
    np.testing.assert_array_equal(drawn[[0, 2, 3]], gate[[0, 2, 3]][:, order])
    assert np.ma.getmaskarray(drawn)[1].all()
    assert ax.figure.axes[1].get_ylabel() == "share of fMRI"
    assert [t.get_text() for t in ax.get_xticklabels()] == sorted(set(NETWORKS))
    assert fits_its_figure(ax)


def test_gate_of_one_scan_is_a_strip(ax, fits_its_figure) -> None:
    plot_gate([0.4, 0.6, 0.5], ax=ax)
    assert ax.images[0].get_array().shape == (1, 3)
    assert ax.get_xlabel() == "region"
    assert len(ax.get_yticks()) == 0
    assert fits_its_figure(ax)
    with pytest.raises(ValueError, match="Got \\(1, 3\\) and 5 networks"):
        plot_gate([0.4, 0.6, 0.5], NETWORKS)


def test_glass_brain_has_a_coloured_dot_per_known_region(ax, fits_its_figure) -> None:
    values = [0.1, np.nan, 0.3, -0.2, 0.25]
    assert plot_glass_brain(values, PLACES, ax=ax, label="difference") is ax
    bar = ax.figure.axes[1]
    assert bar.get_ylabel() == "difference"
    assert bar.get_ylim() == (-0.3, 0.3)
    dots = [c for view in ax.figure.axes[2:] for c in view.collections]
    top = next(c for c in dots if len(c.get_offsets()) == 4)  # seen from above
    shades = colormaps["PuOr_r"]((np.array([0.1, 0.3, -0.2, 0.25]) + 0.3) / 0.6)
    np.testing.assert_allclose(top.get_facecolor()[:, :3], shades[:, :3], atol=0.02)
    places = np.delete(PLACES, 1, axis=0)[:, :2]
    np.testing.assert_array_equal(top.get_offsets(), places)
    assert fits_its_figure(ax)


def test_glass_brain_follows_the_layout() -> None:
    left, right = Figure((7, 2), layout="constrained").subplots(1, 2)
    plot_glass_brain([1, 2, 3, 4, 5], PLACES, ax=right)
    plot_incoming([1, 2, 3, 4, 5], NETWORKS, ax=left)
    figure = right.figure
    figure.draw_without_rendering()
    views = [a for a in figure.axes if a not in (left, right)][1:]
    frame = right.get_position()
    for view in views:
        box = view.get_axes_locator()(view, None)
        assert frame.x0 - 0.01 <= box.x0
        assert box.x1 <= frame.x1 + 0.01


def test_vertices_take_the_nearest_region_of_their_side(mesh) -> None:
    from nilearn.surface import load_surf_mesh

    values, places = np.arange(5.0), np.array(PLACES, float)
    left, right = (
        _by_distance(values, places, mesh[f"pial_{h}"], h, 25.0)
        for h in ("left", "right")
    )
    assert set(left[np.isfinite(left)]) == {0, 1}
    assert set(right[np.isfinite(right)]) == {2, 3, 4}
    vertices = load_surf_mesh(mesh["pial_left"]).coordinates
    distance = np.linalg.norm(vertices - places[1], axis=1)
    assert left[distance.argmin()] == 1
    assert np.isnan(left[distance.argmax()])
    nothing = _by_distance(values[2:], places[2:], mesh["pial_left"], "left", 9)
    assert np.isnan(nothing).all()


def test_vertices_take_the_region_of_an_atlas(mesh) -> None:
    import nibabel as nib

    front = np.zeros((40, 50, 40), dtype=np.int16)  # of 5 mm, from -100, -130, -80
    front[:20], front[20:] = 7, 9
    front[:, :26] = 0  # behind y = 0
    affine = np.diag([5.0, 5.0, 5.0, 1.0])
    affine[:3, 3] = -100, -130, -80
    atlas = nib.Nifti1Image(front, affine)
    owners = {h: _of_atlas(mesh, h, atlas) for h in ("left", "right")}
    assert set(np.unique(owners["left"])) >= {0, 7}
    assert (owners["left"] == 7).sum() > 20 * (owners["left"] == 9).sum()
    drawn = _by_label(np.array([0.5, -1.0]), owners, [7, 9])
    assert np.isnan(drawn["left"][owners["left"] == 0]).all()
    assert (drawn["right"][owners["right"] == 9] == -1).all()
    with pytest.raises(ValueError, match=r"`atlas_labels` per value. Got shapes \(2,"):
        _by_label(np.ones(3), owners, [7, 9])


def test_surface_draws_four_views_with_one_scale(fits_its_figure) -> None:
    ax = Figure(figsize=(COLUMN_WIDTH, 2.6), layout="constrained").subplots()
    assert plot_surface([1, 2, 3, 4, -2], PLACES, ax=ax, label="t") is ax
    assert len(ax.child_axes) == 4
    for view in ax.child_axes:
        (surface,) = view.collections
        colors = surface.get_facecolor()
        assert len(colors) == 20480  # faces of a hemisphere
        assert len(np.unique(colors.round(2), axis=0)) > 5
    bar = ax.figure.axes[1]
    assert bar.get_ylim() == (-4, 4)
    assert bar.get_ylabel() == "t"
    assert fits_its_figure(ax)


def test_surface_draws_a_real_atlas(shared) -> None:
    table = pd.read_csv(shared / "data" / "atlas" / "schaefer400_tian3.csv")
    image = next((shared / "data" / "atlas").glob("*.nii.gz"))
    values = table["y"].to_numpy(copy=True)
    values[:50] = np.nan  # below the cortex
    ax = Figure(figsize=(COLUMN_WIDTH, 2.6), layout="constrained").subplots()
    plot_surface(values, atlas=image, ax=ax, label="y (mm)")
    assert len(ax.child_axes) == 4


def test_brains_refuse_what_has_no_place() -> None:
    with pytest.raises(ValueError, match="Got neither"):
        plot_surface([1.0])
    with pytest.raises(ValueError, match="Got both"):
        plot_surface([1.0], [[0, 0, 0]], atlas="atlas.nii")
    with pytest.raises(ValueError, match=r"Got \(2,\) and \(1, 3\)"):
        plot_glass_brain([1.0, 2.0], [[0, 0, 0]])
    with pytest.raises(ValueError, match="Got 1 values and 0 places of 1"):
        plot_glass_brain([1.0], [[0, 0, np.nan]])
