from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("matplotlib", reason="the pictures need matplotlib")
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from bsym_sklearn.analysis.contrast import Contrast, contrast
from bsym_sklearn.analysis.embedding_maps import Projection, project
from bsym_sklearn.plotting.axes import BLUE, ORANGE
from bsym_sklearn.plotting.contrast import plot_contrast
from bsym_sklearn.plotting.embedding_maps import plot_drift, plot_projection
from bsym_sklearn.plotting.radar import plot_radar

COLUMN_WIDTH = 3.5  # inches


@pytest.fixture
def ax():
    return Figure(figsize=(COLUMN_WIDTH, 3.0), layout="constrained").subplots()


@pytest.fixture
def regions() -> Contrast:
    """Return a contrast in which B is larger in the last of five regions."""
    rng = np.random.default_rng(1)
    before = rng.normal(size=(9, 5)) / 3
    return contrast(before + rng.normal(size=(9, 5)) / 3 - [0, 0, 0, 0, 3], before)


@pytest.fixture
def edges(rng) -> Contrast:
    a, b = rng.normal(size=(2, 9, 4, 4)) / 3
    a[:, 1, 3] += 3
    return contrast(a, b)


def test_intervals_are_of_the_top_regions(ax, regions, fits_its_figure) -> None:
    labels = ["Calcarine_L", "b", "c", "d", "Supp_Motor_Area_R"]
    assert plot_contrast(regions, ax=ax, labels=labels, n_top=3) is ax
    table = regions.table(labels)
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    assert names == table["region"][:3].tolist()
    assert names[0] == "Supp_Motor_Area_R"
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    drawn = [line.get_xdata()[0] for line in dots]
    np.testing.assert_allclose(drawn, table["difference"][:3])
    spans = [bars.get_segments()[0][:, 0] for bars in ax.collections]
    np.testing.assert_allclose(spans, table[["low", "high"]][:3])
    assert to_hex(dots[0].get_color()).upper() == ORANGE  # B is larger
    assert [to_hex(dot.get_markerfacecolor()) for dot in dots] == [
        *[ORANGE.lower(), "#ffffff", "#ffffff"]
    ]
    assert ax.get_title("left") == "1 of 5 at p < 0.05 (max)"
    assert ax.yaxis_inverted()
    assert fits_its_figure(ax)


def test_maps_mark_what_survives(ax, edges, fits_its_figure) -> None:
    assert plot_contrast(edges, ax=ax, labels=list("abcd"), quantity="attention") is ax
    np.testing.assert_allclose(ax.images[0].get_array(), edges.difference)
    low, high = ax.images[0].get_clim()
    assert low == -high == -np.abs(edges.difference).max()
    (marks,) = ax.collections
    assert marks.get_offsets().tolist() == [[3, 1]]  # x is the column
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("attended", "attending")
    assert ax.figure.axes[1].get_ylabel() == "attention"
    assert [t.get_text() for t in ax.get_xticklabels()] == list("abcd")
    assert fits_its_figure(ax)


def test_maps_can_show_effect_sizes_and_edges_intervals(edges, fits_its_figure) -> None:
    ax = plot_contrast(edges, value="effect_size")
    np.testing.assert_allclose(ax.images[0].get_array(), edges.effect_size)
    ax = plot_contrast(edges, show="intervals", labels=list("abcd"))
    assert ax.get_yticklabels()[0].get_text() == "b → d"
    dot = next(line for line in ax.lines if line.get_marker() == "o")
    assert to_hex(dot.get_color()).upper() == BLUE
    assert fits_its_figure(ax)


def test_cells_that_are_not_tested_stay_blank(rng) -> None:
    maps = rng.normal(size=(2, 9, 4, 4))
    maps += maps.swapaxes(2, 3)
    maps[:, :, range(4), range(4)] = 1.0
    ax = plot_contrast(contrast(*maps))
    assert np.ma.getmaskarray(np.ma.masked_invalid(ax.images[0].get_array())).sum() == 4
    assert ax.get_xlabel() == "region"
    assert ax.get_title("left").startswith("none of 6 ")


def test_contrasts_that_cannot_be_drawn_are_refused(regions) -> None:
    with pytest.raises(ValueError, match="Got a contrast of 5 regions"):
        plot_contrast(regions, show="map")
    with pytest.raises(ValueError, match="show"):
        plot_contrast(regions, show="forest")
    with pytest.raises(ValueError, match="value"):
        plot_contrast(regions, value="p")


def test_projections_have_colours_and_shapes(ax, rng, fits_its_figure) -> None:
    found = project(rng.normal(size=(8, 5)))
    groups, shapes = np.array([*"aabbaabb"]), np.array(["pre", "post"] * 4)
    assert plot_projection(found, ax=ax, groups=groups, shapes=shapes) is ax
    assert len(ax.collections) == 4
    drawn = np.concatenate([dots.get_offsets() for dots in ax.collections])
    order = [1, 5, 0, 4, 3, 7, 2, 6]  # by group, then by shape, sorted by name
    np.testing.assert_allclose(drawn, found.points[order])
    keys = [text.get_text() for text in ax.get_legend().get_texts()]
    assert keys == ["a", "b", "post", "pre"]
    assert found.explained_variance is not None
    share = round(100 * found.explained_variance[0])
    assert ax.get_xlabel() == f"component 1 ({share}% of variance)"
    assert fits_its_figure(ax)


def test_projections_need_no_groups(ax, rng) -> None:
    found = Projection(rng.normal(size=(8, 2)), None, 0.9, "isomap")
    plot_projection(found, ax=ax)
    assert ax.get_legend() is None
    assert ax.get_ylabel() == "isomap 2 (no unit)"
    with pytest.raises(ValueError, match=r"points of shape \(8, 2\), \(3,\) groups"):
        plot_projection(found, groups=[0, 1, 2])
    with pytest.raises(ValueError, match=r"points of shape \(8, 1\)"):
        plot_projection(found._replace(points=found.points[:, :1]))


def test_nine_groups_have_a_key_that_fits(rng, fits_its_figure) -> None:
    found = Projection(rng.normal(size=(36, 2)), np.array([0.6, 0.2]), 0.9, "pca")
    people = [f"s{i % 9 + 1}" for i in range(36)]
    shapes = np.repeat(["placebo", "psilocybin"], 18)
    ax = plot_projection(found, groups=people, shapes=shapes)
    assert len(ax.get_legend().get_texts()) == 11
    assert fits_its_figure(ax)


def test_drift_shows_scans_means_and_other_scans(ax, fits_its_figure) -> None:
    table = pd.DataFrame(
        {
            "scan": [0, 0, 0, 1, 1, 1],
            "window": [0, 1, 2] * 2,
            "from_first": [np.nan, 1.0, 2.0, np.nan, 3.0, 4.0],
            "from_previous": [np.nan, 1.0, 1.0, np.nan, 3.0, 1.0],
            "to_others": [5.0, 6.0, 7.0] * 2,
        }
    )
    assert plot_drift(table, ax=ax) is ax
    scans, means = ax.lines[:2], ax.lines[2:]
    np.testing.assert_array_equal(scans[1].get_ydata(), [np.nan, 3, 4])
    np.testing.assert_array_equal(means[0].get_ydata(), [np.nan, 2, 3])
    np.testing.assert_array_equal(means[1].get_ydata(), [np.nan, 2, 1])
    np.testing.assert_array_equal(means[2].get_ydata(), [5, 6, 7])
    np.testing.assert_array_equal(means[2].get_xdata(), [1, 2, 3])
    assert ax.get_ylim()[0] == 0
    assert fits_its_figure(ax)
    with pytest.raises(ValueError, match="needs a column 'to_others'"):
        plot_drift(table.drop(columns="to_others"))


def test_radar_puts_the_best_at_the_rim(fits_its_figure) -> None:
    summary = pd.DataFrame(
        {
            "auroc": [0.5, 0.7, 0.6],
            "log_loss": [0.7, 0.6, 0.8],
            "f1": [0.4, 0.4, 0.4],
            "seconds": [1.0, 2.0, 3.0],
        },
        index=["chance", "linear", "BrainSymphony, fine-tuned on these scans"],
    )
    summary.attrs["metrics"] = ["auroc", "log_loss", "f1"]
    ax = plot_radar(summary)
    radii = [line.get_ydata() for line in ax.lines]
    np.testing.assert_allclose(radii[0], [0.15, 0.575, 1.0, 0.15])
    np.testing.assert_allclose(radii[1], [1.0, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(radii[2], [0.575, 0.15, 1.0, 0.575])
    spokes = [tick.get_text() for tick in ax.get_xticklabels()]
    assert spokes[:2] == ["AUROC\n.500 to .700", "log loss\n.800 to .600"]
    keys = [text.get_text().replace("\n", " ") for text in ax.get_legend().get_texts()]
    assert keys == list(summary.index)
    assert fits_its_figure(ax)


def test_radar_takes_a_column_per_benchmark() -> None:
    table = pd.DataFrame(
        {"abide": [0.6, 0.7], "hcp": [0.9, 0.8], "adhd": [0.5, 0.6], "x": [12.0, 10.0]},
        index=["tangent", "ours"],
    )
    ax = plot_radar(table, lower_is_better=["x"])
    assert [t.get_text() for t in ax.get_xticklabels()][3] == "x\n12 to 10"
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [1, 0.15, 1, 1, 1])
    own = Figure().add_subplot(projection="polar")
    assert plot_radar(table, ax=own, metrics=["abide", "hcp", "adhd"]) is own


def test_radars_that_cannot_be_drawn_are_refused(ax) -> None:
    table = pd.DataFrame({"a": [1.0], "b": [1.0], "c": [1.0]}, index=["m"])
    with pytest.raises(ValueError, match=r"three scores or more. Got \['a', 'b'\]"):
        plot_radar(table, metrics=["a", "b"])
    with pytest.raises(ValueError, match=r"polar Axes\. Got 'rectilinear' ones"):
        plot_radar(table, ax=ax)
    with pytest.raises(ValueError, match="needs a column 'd'"):
        plot_radar(table, metrics=["a", "b", "d"])
